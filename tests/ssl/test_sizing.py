import pytest

from softedge import config
from softedge.errors import UserError
from softedge.ssl import sizing


def recipe(**ssl):
    accumulate = ssl.pop("accumulate", 1)
    return config.build({"ssl": ssl, "optim": {"accumulate": accumulate}})


def test_the_papers_queue_stays_on_imagenet():
    assert sizing.queue_size(recipe(), 1_281_167) == 262144
    assert sizing.notes(recipe(), 1_281_167) == []


def test_a_queue_holds_at_most_half_an_epoch_of_keys():
    asked = recipe(batch=64, queue=65536)
    used = sizing.queue_size(asked, 1438)
    assert used <= 1438  # symmetric: two keys per image, so half an epoch is one key per image
    assert used % 128 == 0
    assert sizing.notes(asked, 1438) == [
        f"queue: {used} keys instead of 65536, or 1438 images would meet their own older keys in it"
    ]


def test_even_a_tiny_data_set_gets_a_queue_of_one_step():
    assert sizing.queue_size(recipe(batch=32, queue=4096), 40) == 64


@pytest.mark.parametrize(
    ("settings", "world", "message"),
    [
        ({"batch": 512}, 1, r"ssl.batch = 512 is more than the 200 images to train on; use --set ssl.batch=32"),
        ({"batch": 96, "queue": 192 * 4}, 5, r"5 ranks × 1 accumulated parts; use --set ssl.batch=95"),
        (
            {"batch": 64, "accumulate": 7},
            1,
            r"1 ranks × 7 accumulated parts and 4 groups of keys; use --set ssl.batch=56",
        ),
        (
            {"batch": 96, "queue": 65536, "symmetric": False},
            8,
            r"queue of 65536 is not a multiple of the 96 keys of a step \(global batch 96\); "
            "use a batch of 1024 or 512, or --set ssl.queue=65472",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_launch_with_values_that_can(settings, world, message):
    with pytest.raises(UserError, match=message):
        sizing.require_feasible(recipe(**settings), 200, world)


@pytest.mark.parametrize(("images", "found"), [(0, "are no images"), (1, "is 1 image")])
def test_too_few_images_for_any_batch_are_said_to_be_too_few(images, found):
    with pytest.raises(UserError, match=f"there {found} to train on .* give at least 2"):
        sizing.require_feasible(recipe(batch=64), images)


def test_proposed_values_are_accepted():
    sizing.require_feasible(recipe(batch=64, queue=1024), 200)
    sizing.require_feasible(recipe(batch=95, queue=190 * 4), 200, 5)
    sizing.require_feasible(recipe(batch=56, queue=112 * 4, accumulate=7), 200)
    sizing.require_feasible(recipe(batch=96, queue=65472, symmetric=False), 200, 8)


def test_a_batch_that_does_not_divide_comes_with_a_batch_and_a_queue_that_run_as_they_are():
    with pytest.raises(UserError, match="use --set ssl.batch=63 --set ssl.queue=1008") as refused:
        sizing.require_feasible(recipe(batch=64, queue=1024), 200, 3)
    proposed = dict(part.split("=") for part in str(refused.value).split("--set ssl.")[1:])
    sizing.require_feasible(recipe(**{name: int(value) for name, value in proposed.items()}), 200, 3)
