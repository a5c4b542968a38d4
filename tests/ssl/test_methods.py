"""What holds for every further method: it learns, targets get no gradient, and the state dict is all there is."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from many import NAMES, VARIANTS, Steps, build, embed
from small import views

from softedge import config, distributed

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_distributed import on_two_ranks


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_change_the_backbone_and_lower_the_loss_on_a_repeated_batch(name):
    made = build(name)
    before = [p.clone() for p in made.backbone.parameters()]
    steps = Steps(made)
    made.before_epoch(0, embed)
    steps.take(0)
    steps.take(1)
    assert all((p != old).any() for p, old in zip(made.backbone.parameters(), before))
    # A growing queue or a moving centre changes what the loss is, and the weight of dual temperature is no part of what
    # is minimised.
    if name in ("pcl-v2", "seed", "seed-whole", "msf", "simco", "simmoco", "dino"):
        return
    losses = [steps.take(2) for _ in range(30)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_not_trained_gets_no_gradient(name):
    made = build(name)
    made.before_epoch(0, embed)
    for number in (0, 1):
        made(views(seed=number), torch.arange(8)).backward()
        made.after_step(0.0)
    trained = {id(p) for p in made.trained_parameters()}
    frozen = [p for p in made.parameters() if id(p) not in trained]
    assert all(p.grad is None for p in frozen)
    assert all(p.grad is not None for p in made.trained_parameters())
    assert all(not b.requires_grad for b in made.buffers())
    if name in ("simmoco", "byol", "msf", "pcl-v2", "seed", "dino"):
        assert frozen


@pytest.mark.parametrize("name", VARIANTS)
def test_the_state_dict_is_the_whole_checkpoint(name):
    made = build(name)
    made.before_epoch(0, embed)
    steps = Steps(made)
    for number in (0, 1, 2):
        steps.take(number)
    other = build(name, seed=7)
    if hasattr(other, "seed"):
        other.seed = made.seed
    other.load_state_dict(made.state_dict())
    others = Steps(other)
    others.optimizer.load_state_dict(copy.deepcopy(steps.optimizer.state_dict()))
    for number in (3, 4):
        assert steps.take(number) == others.take(number)
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_monitor_gets_unit_length_embeddings_of_both_sides(name):
    made = build(name)
    made.before_epoch(0, embed)
    made(views(), torch.arange(8))
    for embeddings in made.latest:
        assert not embeddings.requires_grad
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(8), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_can_be_switched_to_the_method(name):
    assert config.load("digits", [f"ssl.method={name}"]).ssl.method == name


@pytest.mark.parametrize("name", ["byol", "msf", "simmoco", "dino"])
def test_the_target_follows_by_its_momentum(name):
    made = build(name, momentum=0.9, momentum_cosine=False)
    with torch.no_grad():
        for p in made.encoder.parameters():
            p.add_(1.0)
    old = [p.clone() for p in made.target.parameters()]
    made(views(), torch.arange(8))
    made.after_step(0.5)
    for before, now, online in zip(old, made.target.parameters(), made.encoder.parameters()):
        assert torch.allclose(now, 0.9 * before + 0.1 * online, atol=1e-6)


def test_byols_momentum_rises_to_one_along_a_cosine():
    made, seen = build("byol", momentum=0.9), []
    for progress in (0.0, 0.5, 1.0):
        made.after_step(progress)
        seen.append(made.measures()["momentum"])
    assert seen == pytest.approx([0.9, 0.95, 1.0])


def _differing_after_steps(rank: int) -> list[str]:
    """The methods whose shared state is not the same on both ranks after three steps on different images."""
    found = []
    for name in VARIANTS:
        made = build(name)
        optimizer = torch.optim.SGD(made.trained_parameters(), 0.05)
        for step in range(3):
            made.before_epoch(step, embed)
            optimizer.zero_grad()
            made(views(8, seed=10 * step + rank), torch.arange(8) + 8 * rank).backward()
            distributed.average_gradients(made.trained_parameters())
            optimizer.step()
            made.after_step(step / 3)
        if distributed.differing(made.shared_state()):
            found.append(name)
    return found


def test_two_ranks_that_see_different_images_keep_the_same_weights_queues_and_prototypes():
    assert on_two_ranks(_differing_after_steps) == [[], []]


@pytest.mark.parametrize("name", VARIANTS)
def test_under_bf16_autocast_the_loss_is_nearly_that_of_float32(name):
    plain, mixed = build(name), build(name)
    for made in (plain, mixed):
        made.before_epoch(0, embed)
        made(views(), torch.arange(8))
        made.after_step(0.0)
    expected = plain(views(seed=1), torch.arange(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mixed(views(seed=1), torch.arange(8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.1, abs=0.05)
