import math

import pytest
import torch
from many import build
from small import SPEC, data, recipe, views
from torch.nn import functional as F

from softedge import backbones, config
from softedge.errors import UserError
from softedge.run import Run
from softedge.ssl import seed
from softedge.stages import pretrain


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
    one, two = seed.load_teacher(plain), backbones.load(teacher_file)
    assert torch.equal(one.net.conv1.weight, two.net.conv1.weight)


def test_a_state_dict_without_a_name_is_refused_with_the_setting_to_add(teacher_file):
    with pytest.raises(UserError, match="ssl.teacher: .*--set ssl.teacher_name="):
        seed.load_teacher(seed.SEED.Settings(teacher=str(teacher_file.with_name("timm.pth"))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "needs a pretrained teacher"), ({"teacher": "/nowhere.safetensors"}, "nowhere.safetensors does not exist")],
)
def test_a_missing_teacher_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        seed.load_teacher(seed.SEED.Settings(**settings))
