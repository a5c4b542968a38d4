import pytest
import torch

from softedge.ssl.queue import KeyQueue


def test_the_queue_is_a_ring_that_forgets_its_oldest_keys():
    queue = KeyQueue(5, 1)
    for start in range(0, 8, 2):
        queue.enqueue(torch.tensor([[float(start)], [start + 1.0]]))
    assert sorted(queue.negatives().flatten().tolist()) == [3, 4, 5, 6, 7]
    assert int(queue.pointer) == 8 % 5


def test_only_enqueued_keys_count():
    queue = KeyQueue(8, 2)
    assert len(queue.negatives()) == 0
    queue.enqueue(torch.ones(3, 2))
    assert queue.negatives().shape == (3, 2)


def test_a_loaded_queue_goes_on_where_it_was():
    queue, other = KeyQueue(8, 1), KeyQueue(8, 1)
    queue.enqueue(torch.arange(3.0)[:, None])
    other.load_state_dict(queue.state_dict())
    for q in (queue, other):
        q.enqueue(torch.arange(6.0)[:, None])
    assert torch.equal(queue.keys, other.keys)
    assert len(other) == 8


def test_more_keys_than_the_queue_holds_are_refused():
    with pytest.raises(ValueError, match="9 keys do not fit a queue of 8"):
        KeyQueue(8, 1).enqueue(torch.zeros(9, 1))
