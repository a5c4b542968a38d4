"""SEED: the loss by hand, a teacher that sees views, and one that sees every whole image once."""

import math

import numpy as np
import pytest
import torch
from many import build, embed, stopped_and_whole
from PIL import Image
from small import SPEC, TinyBackbone, data, recipe, views
from torch.nn import functional as F

from softedge import backbones, config
from softedge.errors import UserError
from softedge.records import InputSpec
from softedge.run import Run
from softedge.ssl import seed, teaching, whole_set
from softedge.stages import pretrain
from softedge.weights import packages


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=1)


def by_hand(student, teacher, queue, student_tau, teacher_tau):
    """Cross-entropy of two softmaxes over [own teacher embedding, queue], in plain loops."""

    def softmax(z, entries, tau):
        e = [math.exp(sum(a * b for a, b in zip(z, d)) / tau) for d in entries]
        return [x / sum(e) for x in e]

    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist()):
        entries = [t, *queue.tolist()]
        pairs = zip(softmax(t, entries, teacher_tau), softmax(s, entries, student_tau))
        total -= sum(p * math.log(q) for p, q in pairs)
    return total / len(student)


def test_the_loss_is_the_cross_entropy_of_similarities():
    student, teacher, queue = unit(5, 4), unit(5, 4, seed=1), unit(9, 4, seed=2)
    ours = seed.distillation(student, teacher, queue, temperature=0.2, teacher_temperature=0.05)
    assert ours.item() == pytest.approx(by_hand(student, teacher, queue, 0.2, 0.05), abs=1e-12)


def test_no_gradient_flows_into_teacher_and_queue():
    student, teacher, queue = (unit(n, 4, seed=n).requires_grad_() for n in (5, 5, 9))
    seed.distillation(student, teacher.detach().roll(1, 0).requires_grad_(), queue, temperature=0.2,
                      teacher_temperature=0.05).backward()  # fmt: skip
    assert student.grad is not None
    assert teacher.grad is None
    assert queue.grad is None


def test_the_teacher_stays_as_it_is_down_to_its_running_statistics():
    made = build("seed").train()
    before = {k: v.clone() for k, v in made.teacher.state_dict().items()}
    for number in range(3):
        made(views(seed=number), torch.arange(8)).backward()
        made.after_step(0.1)
    assert all(torch.equal(v, before[k]) for k, v in made.teacher.state_dict().items())
    assert made.encoder.training


def test_the_queue_holds_the_teachers_embeddings_of_earlier_steps():
    made = build("seed")
    made(views(), torch.arange(8))
    assert len(made.queue) == 0
    made.after_step(0.1)
    with torch.no_grad():
        expected = F.normalize(made.teacher.eval()(views()[0]))
    assert torch.allclose(made.queue.negatives(), expected, atol=1e-6)


@pytest.fixture
def teacher_file(tmp_path):
    torch.manual_seed(1)
    backbone = backbones.build(config.Backbone(name="resnet18"), seed=5)
    backbones.save(tmp_path / "teacher.safetensors", backbone, SPEC)
    torch.save(backbone.net.state_dict(), tmp_path / "timm.pth")
    return tmp_path / "teacher.safetensors"


def test_a_given_teacher_file_is_used_and_the_students_head_is_as_wide(teacher_file):
    made = recipe(ssl__method="seed", ssl__projector=[16], ssl__teacher=f'"{teacher_file}"')
    method = seed.SEED.build(made, backbones.build(made.backbone), data().pretrain)
    expected = backbones.load(teacher_file).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in method.teacher.state_dict().items())
    assert method.encoder.projector[-1].out_features == 512


def test_another_teacher_of_the_same_name_is_another_training(teacher_file, tmp_path):
    made = recipe(ssl__method="seed", ssl__teacher=f'"{teacher_file}"')
    before = pretrain.settings(made), pretrain.inputs_of(Run(tmp_path / "run"), made)
    teacher_file.write_bytes(b"another")
    after = pretrain.settings(made), pretrain.inputs_of(Run(tmp_path / "run"), made)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_state_dict_of_timm_is_a_teacher_when_its_name_is_given(teacher_file):
    plain = seed.SEED.Settings(teacher=str(teacher_file.with_name("timm.pth")), teacher_name="resnet18")
    one, two = teaching.load(plain), backbones.load(teacher_file)
    assert torch.equal(one.net.conv1.weight, two.net.conv1.weight)


def test_a_state_dict_without_a_name_is_refused_with_the_setting_to_add(teacher_file):
    with pytest.raises(UserError, match="ssl.teacher: .*--set ssl.teacher_name="):
        teaching.load(seed.SEED.Settings(teacher=str(teacher_file.with_name("timm.pth"))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a pretrained teacher"),
        ({"teacher": "/nowhere.safetensors"}, "ssl.teacher = '/nowhere.safetensors': the file does not exist"),
        ({"teacher": "/nowhere.pth", "teacher_name": "resnet18"}, "the file does not exist"),
        ({"teacher": "package"}, "needs the network's name: --set ssl.teacher_name=tf_efficientnet_lite0"),
        ({"teacher": "package", "teacher_name": "resnet18"}, "ssl.teacher = 'package': no package has weights of"),
        ({"teacher": "random", "teacher_name": "resnet18"}, "does not say whose weights teach"),
        ({"teacher": "package", "teacher_name": "resnet1"}, "did you mean"),
    ],
)
def test_a_missing_teacher_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        teaching.load(seed.SEED.Settings(**settings))
    assert "\n" not in str(error.value)
    assert "backbone.weights" not in str(error.value)


def test_a_teacher_of_another_network_is_refused(teacher_file):
    settings = seed.SEED.Settings(teacher=str(teacher_file.with_name("timm.pth")), teacher_name="resnet50")
    with pytest.raises(UserError, match="does not hold weights of resnet50"):
        teaching.load(settings)


# A teacher that sees every whole image once.


def spec_of(teacher: str, name: str, size: int) -> InputSpec:
    settings = seed.SEED.Settings(teacher=teacher, teacher_name=name)
    return teaching.spec_of(settings, teaching.load(settings), size)


def test_whole_images_are_prepared_as_the_teachers_weights_expect_it(teacher_file):
    half = (0.5, 0.5, 0.5)
    assert spec_of("package", "tf_efficientnet_lite0", 96) == InputSpec(96, 96, half, half, "bicubic")
    assert spec_of(str(teacher_file), "", 64) == InputSpec(64, 64, SPEC.mean, SPEC.std, "bilinear")
    timms = spec_of(str(teacher_file.with_name("timm.pth")), "resnet18", 64)
    assert timms == InputSpec(64, 64, config.IMAGENET_MEAN, config.IMAGENET_STD, "bicubic")


def described_by_hand(teacher, images, spec, count, whitening):
    """Unit vectors in the principal directions of what ``teacher`` says of images enlarged one by one, float64."""
    rows = []
    for index in range(len(images)):
        picture = Image.fromarray(images.decode(index)).resize((spec.size, spec.size), Image.Resampling.BICUBIC)
        pixels = (np.asarray(picture) / 255 - np.array(spec.mean)) / np.array(spec.std)
        with torch.no_grad():
            rows.append(teacher(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])[0].double().numpy())
    centred = np.stack(rows) - np.mean(rows, 0)
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    made = (centred @ directions[:count].T) * (strengths[:count] / len(images) ** 0.5) ** -whitening
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_kept_features_are_those_of_a_loop_over_enlarged_images(whitening):
    torch.manual_seed(0)
    teacher, images = TinyBackbone().eval(), data(20).pretrain
    teacher.net[1].running_mean.normal_()
    spec = InputSpec(48, 48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bicubic")
    kept = teaching.KeptFeatures(teacher, spec, 20, 3, whitening)
    kept.fill(lambda network, chosen=None, spec=None: whole_set.embed(network, images, spec, torch.device("cpu")))
    expected = torch.tensor(described_by_hand(teacher, images, spec, 3, whitening))
    assert kept.described.shape == (20, 3)
    assert torch.allclose(kept(torch.arange(20)).double().abs(), expected.abs(), atol=2e-3)  # signs are free
    assert torch.allclose((kept.described @ kept.described.T).double(), expected @ expected.T, atol=4e-3)


def test_fewer_images_than_components_leave_the_other_components_zero():
    kept = teaching.KeptFeatures(TinyBackbone(), SPEC, 16, 8, 0.5)
    kept.fill(lambda network, chosen=None, spec=None: embed(network)[[0, 1, 2, 3] * 4])
    rows = kept.described.float()
    assert rows.isfinite().all() and torch.allclose(rows.norm(dim=1), torch.ones(16), atol=1e-3)
    assert (rows[:, 3:].abs() < 1e-3).all()


def test_a_step_compares_a_view_with_what_is_kept_of_its_image():
    made = build("seed-whole", temperature=0.2, teacher_temperature=0.05)
    made.before_epoch(0, embed)
    first, second = torch.tensor([3, 1, 4, 15, 9, 2, 6, 5]), torch.tensor([8, 7, 0, 3, 10, 11, 12, 13])
    made(views(), first)
    made.after_step(0.1)
    loss = made(views(seed=1), second)
    described = F.normalize(made.teacher.described.double(), dim=1)
    student = made.latest[0].double()
    assert loss.item() == pytest.approx(by_hand(student, described[second], described[first], 0.2, 0.05), abs=1e-5)


def test_a_teacher_of_whole_images_is_asked_once_and_is_no_part_of_the_checkpoint():
    made, calls = build("seed-whole"), []

    def counted(network, chosen=None, spec=None):
        calls.append((chosen, spec))
        return embed(network)

    for epoch in range(3):
        made.before_epoch(epoch, counted)
    assert calls == [(None, SPEC)]
    assert [name for name in made.state_dict() if name.startswith("teacher.")] == ["teacher.described"]


def test_a_training_that_resumes_does_not_ask_the_teacher_again():
    made, resumed = build("seed-whole"), build("seed-whole", seed=7)
    made.before_epoch(0, embed)
    resumed.load_state_dict(made.state_dict())
    resumed.before_epoch(1, lambda network, chosen=None, spec=None: pytest.fail("asked again"))
    assert torch.equal(resumed.teacher(torch.arange(16)), made.teacher(torch.arange(16)))


def test_a_stopped_training_with_kept_features_ends_like_a_whole_one(tmp_path, monkeypatch, teacher_file):
    wanted = recipe(
        ssl__method="seed", ssl__teacher=f'"{teacher_file}"', ssl__teacher_size=48, ssl__components=8,
        ssl__projector=[16], ssl__knn_every=0,
    )  # fmt: skip
    ours, theirs = stopped_and_whole(wanted, tmp_path, monkeypatch)
    assert ours["teacher.described"].any()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_package_of_the_teacher_is_an_input_of_the_training(tmp_path):
    made = recipe(ssl__method="seed", ssl__teacher="package", ssl__teacher_name="tf_efficientnet_lite0")
    package = packages.PACKAGES["tf_efficientnet_lite0"]
    assert package.sha256 in pretrain.inputs_of(Run(tmp_path / "run"), made).values()
