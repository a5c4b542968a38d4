"""DINO: the loss and the centre in plain loops, the views it asks for, and the loop with multi-crop."""

import math

import pytest
import torch
from many import build, stopped_and_whole
from small import SPEC, data, recipe, views
from torch.nn import functional as F

from softedge import config
from softedge.data.draws import boxes, draw
from softedge.errors import UserError
from softedge.run import Run
from softedge.ssl import optimizers
from softedge.ssl.dino import DINO, Prototypes, self_distillation
from softedge.ssl.monitor import measures
from softedge.stages import pretrain

MULTI_CROP = {
    "ssl__method": "dino",
    "ssl__projector": [16, 8],
    "ssl__prototypes": 24,
    "ssl__local_views": 3,
    "ssl__local_size": 16,
}


def softmax(values):
    top = max(values)
    each = [math.exp(v - top) for v in values]
    return [e / sum(each) for e in each]


def by_hand(student, teacher, centre, temperature, teacher_temperature):
    """Algorithm 1 of the paper in plain loops: H(t, s) for every teacher view and every other student view."""
    losses = []
    for t, of_teacher in enumerate(teacher):
        for s, of_student in enumerate(student):
            if s == t:
                continue
            for g_t, g_s in zip(of_teacher, of_student):
                target = softmax([(a - c) / teacher_temperature for a, c in zip(g_t, centre)])
                p = softmax([a / temperature for a in g_s])
                losses.append(-sum(a * math.log(b) for a, b in zip(target, p)))
    return sum(losses) / len(losses)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("student_views", [2, 5])
def test_the_loss_is_the_papers_algorithm_1(student_views):
    student, teacher, centre = random(student_views, 6, 7, seed=0), random(2, 6, 7, seed=1), random(7, seed=2)
    ours = self_distillation(student, teacher, centre, temperature=0.3, teacher_temperature=0.2)
    expected = by_hand(student.double().tolist(), teacher.double().tolist(), centre.double().tolist(), 0.3, 0.2)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_the_difference_of_the_distributions():
    """dL/dg_s = (P_s - mean of the targets it is compared with) / τ_s, each pair with its share of the mean."""
    student = random(3, 4, 5, seed=0).double().requires_grad_()
    teacher = random(2, 4, 5, seed=1).double().requires_grad_()
    self_distillation(student, teacher, torch.zeros(5), temperature=0.5, teacher_temperature=0.2).backward()
    assert teacher.grad is None
    targets, p = (teacher.detach() / 0.2).softmax(2), (student.detach() / 0.5).softmax(2)
    pairs = {0: [1], 1: [0], 2: [0, 1]}  # student view -> teacher views
    for s, others in pairs.items():
        expected = sum(p[s] - targets[t] for t in others) / 0.5 / (4 * 4)  # 4 pairs, 4 images
        assert torch.allclose(student.grad[s], expected, atol=1e-6)


def test_a_centre_takes_away_what_all_images_have_in_common():
    logits, shift = random(2, 6, 7, seed=0), random(7, seed=1)
    plain = self_distillation(logits, logits, torch.zeros(7), temperature=0.1, teacher_temperature=0.04)
    shifted = self_distillation(logits, logits + shift, shift, temperature=0.1, teacher_temperature=0.04)
    assert shifted.item() == pytest.approx(plain.item(), rel=1e-4)


def test_the_centre_is_the_moving_mean_of_the_teachers_logits():
    made, expected = build("dino", centre_momentum=0.9), torch.zeros(12)
    for step in range(3):
        pair = views(8, seed=step)
        with torch.no_grad():
            logits = made.target_prototypes(made.target(torch.cat(pair)))
        made(pair, torch.arange(8))
        made.after_step(step / 3)
        expected = 0.9 * expected + 0.1 * logits.mean(0)
        assert torch.allclose(made.centre, expected, atol=1e-6)


def test_accumulated_parts_give_the_centre_of_the_whole_batch():
    whole, parts = build("dino"), build("dino")
    pair = views(8)
    for made in (whole, parts):
        made.target.eval()
    whole(pair, torch.arange(8))
    for part in zip(*(view.chunk(2) for view in pair)):
        parts(part, torch.arange(4))
    for made in (whole, parts):
        made.after_step(0.1)
    assert torch.allclose(whole.centre, parts.centre, atol=1e-6)


def test_the_prototypes_are_torchs_weight_normalised_layer_of_norm_one():
    ours = Prototypes(4, 12)
    theirs = torch.nn.Linear(4, 12, bias=False)
    theirs.weight.data.copy_(ours.weight.data)
    theirs = torch.nn.utils.parametrizations.weight_norm(theirs)
    theirs.parametrizations.weight.original0.data.fill_(1.0)
    x = F.normalize(random(5, 4, seed=0))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_the_forward_pass_is_the_loss_of_all_views_against_the_global_ones():
    made = build("dino")
    made.eval()
    with torch.no_grad():
        made.centre.copy_(random(12, seed=3))
        for p in made.target.parameters():
            p.mul_(1.2)
    first, second = views(8)
    local = [first[:, :, :8, :8], second[:, :, 2:10, 2:10]]
    with torch.no_grad():
        student = [made.prototypes(made.encoder(view)).double().tolist() for view in (first, second, *local)]
        teacher = [made.target_prototypes(made.target(view)).double().tolist() for view in (first, second)]
    expected = by_hand(student, teacher, made.centre.double().tolist(), 0.1, 0.04)
    assert made([first, second, *local], torch.arange(8)).item() == pytest.approx(expected, rel=1e-4)


def test_the_prototypes_stay_where_they_are_in_the_epochs_they_are_frozen():
    made = build("dino", freeze_epochs=1.0, epochs=4)
    made(views(), torch.arange(8)).backward()
    assert not made.prototypes.weight.grad.any()
    assert all(p.grad.any() for p in made.encoder.projector.parameters())
    made.after_step(0.25)
    made(views(), torch.arange(8)).backward()
    assert made.prototypes.weight.grad.any()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_weight_decay_does_not_turn_frozen_prototypes(name):
    made = build("dino", freeze_epochs=1.0)
    before = F.normalize(made.prototypes.weight.detach().clone(), dim=1)
    optimizer = optimizers.build(config.Optim(optimizer=name, lr=0.1, weight_decay=0.1), made.trained_parameters())
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        made(views(seed=step), torch.arange(8)).backward()
        optimizer.step()
    assert torch.allclose(F.normalize(made.prototypes.weight.detach(), dim=1), before, atol=1e-6)


def test_the_teachers_temperature_rises_linearly_in_its_warm_up():
    made = build("dino", epochs=10, teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_warmup_epochs=3.0)
    seen = []
    for epoch in (0, 1, 2, 3, 9):
        made._progress = epoch / 10
        seen.append(made.teacher_temperature)
    assert seen == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_it_asks_for_two_global_and_the_local_views_of_its_settings():
    wanted = DINO.views(config.load("dino"), 224)
    assert [view.size for view in wanted] == [224] * 2 + [96] * 8
    assert [(view.augment.min_area, view.max_area) for view in wanted] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 8
    smaller = config.load("dino", ["ssl.local_size=0", "ssl.local_views=1"])
    assert [view.size for view in DINO.views(smaller, 112)] == [112, 112, 48]


def test_local_views_show_the_share_of_the_image_they_are_given():
    _, _, *local = draw(0, 0, torch.arange(2000).numpy(), DINO.views(config.load("dino"), 224))
    box = boxes(local[3], 1000, 1000)
    area = box[:, 2] * box[:, 3] / 1e6
    assert 0.049 < area.min() < 0.055
    assert 0.135 < area.max() < 0.141


def test_local_areas_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match="local_area"):
        build("dino", local_area=(0.4, 0.05))


def test_a_training_with_multi_crop_ends_in_the_same_bits_after_a_stop(tmp_path, monkeypatch):
    ours, theirs = stopped_and_whole(recipe(**MULTI_CROP, ssl__knn_every=0), tmp_path, monkeypatch)
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert ours["centre"].abs().sum() > 0


def test_the_loop_feeds_it_views_of_both_sizes(tmp_path, monkeypatch):
    shapes = []
    forward = DINO.forward
    monkeypatch.setattr(
        DINO, "forward", lambda self, v, index: shapes.append([x.shape[-1] for x in v]) or forward(self, v, index)
    )
    result = pretrain.stage(Run(tmp_path), recipe(**MULTI_CROP, ssl__epochs=1, optim__warmup_epochs=0), data())
    assert shapes == [[SPEC.size, SPEC.size, 16, 16, 16]] * 3
    assert math.isfinite(result.metrics["loss"])


@pytest.mark.parametrize("kind", ["one prototype", "uniform"])
def test_the_monitor_sees_both_ways_to_collapse(kind):
    """The same distribution for every image is the same point; one prototype each is spread out."""
    made = build("dino", prototypes=64, projector=(16, 8))
    prefer = torch.arange(64)[:32]
    healthy = 9 * F.one_hot(prefer, 64).float()
    collapsed = torch.zeros(32, 64) if kind == "uniform" else 9 * F.one_hot(torch.zeros_like(prefer), 64).float()
    assert measures(*made._expected(healthy, healthy))["std"] > 0.5
    assert measures(*made._expected(collapsed, collapsed))["std"] < 0.01
