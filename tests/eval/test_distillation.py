"""Distillation: the loss against a loop, one view for both, resuming in the same bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toy_run import SPEC, coloured_squares

from softedge import backbones, config
from softedge.errors import UserError
from softedge.eval import optimising
from softedge.eval.distillation import Answers, ViewClassifier, distillation, teach
from softedge.eval.features import extract
from softedge.eval.finetune import fresh
from softedge.eval.knn import top1
from softedge.records import InputSpec


def by_hand(logits, teacher, labels, alpha: float, temperature: float) -> float:
    """Equations (2) and (3) of SimCLRv2, a number at a time."""
    total, count = 0.0, len(logits)
    for row, wanted, label in zip(logits.tolist(), teacher.tolist(), labels.tolist()):
        cooled = [math.exp(value / temperature) for value in row]
        total -= alpha * sum(p * math.log(c / sum(cooled)) for p, c in zip(wanted, cooled)) / count
        if label >= 0:
            total -= (1 - alpha) * math.log(math.exp(row[label]) / sum(math.exp(v) for v in row)) / count
    return total


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (0.0, 1.0), (0.7, 2.0)])
def test_the_loss_is_that_of_the_paper(alpha, temperature):
    torch.manual_seed(0)
    logits, teacher = torch.randn(6, 4), torch.randn(6, 4).softmax(1)
    labels = torch.tensor([0, -1, 3, -1, -1, 2])
    found = distillation(logits, teacher, labels, alpha=alpha, temperature=temperature)
    assert found.item() == pytest.approx(by_hand(logits, teacher, labels, alpha, temperature), abs=1e-5)


def test_without_any_label_only_the_teacher_counts():
    logits, teacher = torch.randn(3, 4), torch.randn(3, 4).softmax(1)
    none = torch.full((3,), -1)
    full = distillation(logits, teacher, none, alpha=1.0, temperature=1.0)
    assert distillation(logits, teacher, none, alpha=0.5, temperature=1.0).item() == pytest.approx(full.item() / 2)


def classifier(seed: int = 0, spec: InputSpec = SPEC) -> backbones.Classifier:
    torch.manual_seed(seed)
    settings = config.Backbone(name="mobilenetv3_small_050", stem_stride=1)
    return fresh(backbones.build(settings, seed=seed), ("red", "green", "blue"), spec, seed)


def test_a_network_answers_for_the_view_that_the_student_sees_at_its_own_size():
    small = ViewClassifier(classifier())
    views = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8).repeat_interleave(2, 1).repeat_interleave(2, 2)
    with torch.no_grad():
        expected = small.classifier(backbones.normalise(views, SPEC)).softmax(1)
    torch.testing.assert_close(small(views, torch.arange(2), 1.0), expected)
    large = ViewClassifier(classifier(spec=InputSpec(48, 48, SPEC.mean, SPEC.std)))
    assert large(views, torch.arange(2), 1.0).shape == (2, 3)


def test_answers_at_a_temperature_are_those_of_their_logarithms():
    answers = Answers(np.array([[0.8, 0.2], [0.5, 0.5]]))
    actual = answers(torch.zeros(1, 2, 2, 3), torch.tensor([0]), 2.0)
    expected = np.sqrt([0.8, 0.2]) / np.sqrt([0.8, 0.2]).sum()
    np.testing.assert_allclose(actual[0].numpy(), expected, atol=1e-6)


def settings(**changes) -> config.Recipe:
    values = {"epochs": 3, "min_steps": 1, "batch": 6, "lr": 2e-3} | changes
    return config.build({"augment": {"flip": 0.0}, "distill": values, "data": {"workers": 0}})


class Stopped(Exception):
    pass


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_resumed_training_ends_in_the_same_bits(tmp_path, mixup, monkeypatch):
    monkeypatch.setattr(optimising, "STEPS_BETWEEN", 2)
    images = coloured_squares(12, 0)
    images.labels[4:] = -1
    probabilities = np.eye(3)[np.arange(12) % 3] * 0.9 + 0.1 / 3
    answers = Answers(probabilities)
    recipe = settings(mixup=mixup)
    whole, again = classifier(), classifier()
    losses = teach(whole, images, answers, recipe)

    class Stops(Answers):
        calls = 0

        def __call__(self, *given):
            self.calls += 1
            if self.calls == 4:  # in the second of three epochs of two steps
                raise Stopped
            return super().__call__(*given)

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        teach(classifier(), images, Stops(probabilities), recipe, checkpoint=path)
    torch.manual_seed(99)
    assert teach(again, images, answers, recipe, checkpoint=path) == losses
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_checkpoints_are_written_after_an_epoch_and_not_sooner_than_so_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(optimising, "STEPS_BETWEEN", 3)
    written = []
    monkeypatch.setattr(optimising.checkpoints, "write", lambda path, content: written.append(len(content["losses"])))
    images, answers = coloured_squares(12, 0), Answers(np.eye(3)[np.arange(12) % 3] * 0.9 + 0.1 / 3)
    losses = teach(classifier(), images, answers, settings(mixup=0.0, epochs=6), checkpoint=tmp_path / "checkpoint.pt")
    assert len(losses) == 12 and written == [4, 8, 12]  # epochs of two steps


def test_a_checkpoint_with_one_changed_bit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(optimising, "STEPS_BETWEEN", 1)
    path, images = tmp_path / "checkpoint.pt", coloured_squares(12, 0)
    answers = Answers(np.eye(3)[np.arange(12) % 3] * 0.9 + 0.1 / 3)
    teach(classifier(), images, answers, settings(mixup=0.0), checkpoint=path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint.pt is damaged: its bytes do not match .* --force"):
        teach(classifier(), images, answers, settings(mixup=0.0), checkpoint=path)


def test_a_good_teacher_of_many_images_is_worth_more_than_three_labels():
    images, test = coloured_squares(60, 0), coloured_squares(60, 1)
    answers = Answers(np.eye(3)[images.labels] * 0.9 + 0.1 / 3)
    images.labels[3:] = -1
    found = {}
    for alpha in (0.0, 0.8):  # the labels alone; and the teacher's answers for all images
        student = classifier()
        teach(student, images, answers, settings(alpha=alpha, batch=12, lr=4e-3, min_steps=40, max_steps=40))
        found[alpha] = top1(extract(student, test, SPEC), test.labels)
    assert found[0.8] > found[0.0] + 0.2
