import math

import pytest
import torch
from small import method, views

from softedge import config
from softedge.errors import UserError
from softedge.ssl import losses
from softedge.ssl.light_moco import LightMoCo, MoCoV2

INDEX = torch.arange(8)


def filled(kind=LightMoCo, steps: int = 3, **settings):
    """A method that has seen a few batches, so that its queue holds negatives."""
    made = method(kind, **settings)
    for step in range(steps):
        made(views(seed=step), INDEX).backward()
        made.after_step(0.0)
    return made


def test_the_symmetric_loss_is_the_mean_of_both_directions():
    both = filled(key_norm="batch", symmetric=True)
    first, second = views(seed=9)
    one = filled(key_norm="batch", symmetric=True)
    one.settings = one.settings.model_copy(update={"symmetric": False})
    forward, backward = one((first, second), INDEX), one((second, first), INDEX)
    assert both((first, second), INDEX).item() == pytest.approx((forward + backward).item() / 2, rel=1e-6)


def test_a_key_is_no_negative_of_its_own_step():
    made = filled(key_norm="batch", symmetric=False)
    before = made.queue.keys.clone()
    first, second = views(seed=9)
    loss = made((first, second), INDEX)
    assert torch.equal(made.queue.keys, before)
    with torch.no_grad():
        query, key = made.encoder(first), made.key_encoder(second)
    expected = losses.soft_nce(query, key, before[:24], temperature=0.1, alpha=0.8, weights=losses.linear_decay(5, 0.8))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    made.after_step(0.1)
    assert torch.allclose(made.queue.keys[24:], key, atol=1e-6)


def test_what_the_queue_holds_before_it_was_filled_does_not_change_the_loss():
    clean, polluted = filled(steps=2, queue=64), filled(steps=2, queue=64)
    assert len(polluted.queue) == 32
    polluted.queue.keys[32:] = torch.nn.functional.normalize(torch.randn(32, 4), dim=1)
    assert clean(views(seed=9), INDEX).item() == polluted(views(seed=9), INDEX).item()


def test_the_first_step_has_no_negatives_and_no_gradient():
    made = method()
    loss = made(views(), INDEX)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in made.trained_parameters())


def test_until_the_queue_holds_k_keys_the_loss_is_info_nce():
    made = filled(steps=1, symmetric=False, queue=64, neighbors=9, key_norm="batch")
    other = filled(MoCoV2, steps=1, symmetric=False, queue=64, temperature=0.1, momentum=0.99, key_norm="batch")
    assert made(views(seed=9), INDEX).item() == pytest.approx(other(views(seed=9), INDEX).item(), rel=1e-6)


def test_light_moco_with_alpha_one_is_moco():
    made = filled(alpha=1.0, momentum=0.99, momentum_cosine=False)
    other = filled(MoCoV2, temperature=0.1, momentum=0.99, symmetric=True)
    assert made(views(seed=9), INDEX).item() == pytest.approx(other(views(seed=9), INDEX).item(), rel=1e-6)


def test_the_key_encoder_follows_by_the_momentum_and_gets_no_gradient():
    made = method(momentum_cosine=False, momentum=0.9)
    made(views(), INDEX).backward()
    with torch.no_grad():
        for p in made.encoder.parameters():
            p.add_(1.0)
    old = [p.clone() for p in made.key_encoder.parameters()]
    made.after_step(0.5)
    for before, now, query in zip(old, made.key_encoder.parameters(), made.encoder.parameters()):
        assert now.grad is None
        assert torch.allclose(now, 0.9 * before + 0.1 * query, atol=1e-6)


def test_momentum_rises_to_one_along_a_cosine():
    made = method(momentum=0.9, momentum_cosine=True)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        made(views(), INDEX)
        made.after_step(progress)
        seen.append(made.momentum)
    assert seen == pytest.approx([0.9, 0.95, 1.0])


def test_incremental_alpha_falls_from_one_to_its_bound():
    made = method(alpha_schedule="incremental", alpha=0.6)
    seen = [made.alpha]
    for progress in (0.5, 1.0):
        made(views(), INDEX)
        made.after_step(progress)
        seen.append(made.alpha)
    assert seen == pytest.approx([1.0, 0.8, 0.6])


def test_micro_batches_fill_the_queue_as_one_batch_does():
    whole, parts = method(key_norm="ema"), method(key_norm="ema")
    first, second = views()
    whole((first, second), INDEX)
    for half in (slice(0, 4), slice(4, 8)):
        parts((first[half], second[half]), INDEX[half])
    for made in (whole, parts):
        made.after_step(0.1)
    assert torch.allclose(whole.queue.keys, parts.queue.keys, atol=1e-6)


def test_joint_views_change_nothing_but_the_statistics():
    apart, joint = filled(key_norm="ema"), filled(key_norm="ema", joint_views=True)
    for made in (apart, joint):
        made.encoder.eval()  # frozen statistics
    joint.load_state_dict(apart.state_dict())
    pair = views(seed=9)
    assert joint(pair, INDEX).item() == pytest.approx(apart(pair, INDEX).item(), rel=1e-6)
    for made in (apart, joint):
        made.after_step(0.5)
    assert torch.allclose(apart.queue.keys, joint.queue.keys, atol=1e-6)


def test_the_state_dict_is_the_whole_checkpoint():
    made = filled(alpha_schedule="incremental")
    made(views(), INDEX)
    made.after_step(0.3)
    other = method(seed=7, alpha_schedule="incremental")
    other.seed = made.seed
    other.load_state_dict(made.state_dict())
    assert len(other.queue) == len(made.queue)
    assert other.alpha == pytest.approx(made.alpha)
    for seed in (20, 21):
        losses_now = [m(views(seed=seed), INDEX) for m in (made, other)]
        assert losses_now[0].item() == losses_now[1].item()
        for m in (made, other):
            m.after_step(0.4)
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), other.state_dict().values()))


def test_a_bf16_queue_takes_half_the_memory_and_nearly_the_same_loss():
    wide, narrow = filled(), filled(queue_dtype="bf16")
    assert narrow.queue.keys.element_size() * 2 == wide.queue.keys.element_size()
    assert wide(views(seed=9), INDEX).item() == pytest.approx(narrow(views(seed=9), INDEX).item(), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"neighbors": 1}, "the linear pattern needs 2"), ({"neighbors": 50}, "more than the queue of 32 keys")],
)
def test_neighbours_that_cannot_work_are_refused_with_a_value_that_can(settings, message):
    with pytest.raises(UserError, match=message):
        method(**settings)


def test_the_papers_settings_are_the_defaults():
    paper = LightMoCo.Settings()
    assert (paper.queue, paper.temperature, paper.momentum, paper.alpha, paper.neighbors) == (2**18, 0.1, 0.99, 0.8, 20)
    assert paper.symmetric
    assert paper.momentum_cosine
    assert paper.projector == (2048, 128)
    assert math.isclose(config.Optim().lr, 0.2)
