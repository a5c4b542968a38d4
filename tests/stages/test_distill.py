"""The stage: who teaches, on which images, how it is judged, and that it helps where labels are few."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy_run import SPEC, coloured_squares

from softedge import backbones
from softedge.data.images import ArrayImages
from softedge.errors import UserError
from softedge.eval.features import extract
from softedge.eval.knn import top1
from softedge.export import contract
from softedge.export.deployed import Deployed
from softedge.quantize.selection import select
from softedge.records import Result
from softedge.stages import check, distill, export, teachers


def mostly_unlabelled(data, labelled: int, without: int):
    """The first images of ``coloured_squares`` with their labels, the others without."""
    everything = coloured_squares(labelled + without, 0)
    labels = np.where(np.arange(labelled + without) < labelled, everything.labels, -1)
    pretrain = ArrayImages(everything.array, labels, everything.names)
    return dataclasses.replace(data, pretrain=pretrain, train=pretrain.subset(np.arange(labelled)))


def changed(recipe, **values):
    values = {"epochs": 1, "min_steps": 4, "max_steps": 4, "batch": 16, "lr": 2e-3} | values
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update=values)})


def test_held_out_images_teach_nothing(toy):
    _, _, data = toy("run")
    few = teachers.parts(mostly_unlabelled(data, 9, 60), 0)
    assert few.n_labelled == 9 and len(few.validation) == 0 and len(few.unseen) == 6
    assert not set(few.unseen) & set(few.used) and set(range(9)) < set(few.used)
    many = teachers.parts(mostly_unlabelled(data, 303, 303), 0)
    assert len(many.validation) == 30 and not set(many.validation) & set(many.used)
    assert (many.labels[many.validation] == -1).all() and (many.labels >= 0).sum() == 273
    recorded = Result("distill", "test", {}, {"seed": 0}, {}, {}, "", 0.0)
    held = distill.unseen(recorded, mostly_unlabelled(data, 303, 303))
    assert held is not None and not {i.tobytes() for i in held.array} & {i.tobytes() for i in many.images.array}
    assert distill.unseen(recorded, mostly_unlabelled(data, 9, 60)) is None


def test_few_labels_spread_and_many_are_taught_by_the_best_classifier(toy):
    run, recipe, data = toy("run")
    assert teachers.resolve(run, recipe, mostly_unlabelled(data, 9, 60)) == "spread"
    with pytest.raises(UserError, match="softedge probe"):
        teachers.resolve(run, recipe, data)


def test_the_result_says_how_the_network_and_its_teacher_were_judged(toy):
    run, recipe, data = toy("run")
    data = mostly_unlabelled(data, 9, 60)
    result = distill.stage(run, changed(recipe), data)
    assert (result.metrics["n_train"], result.metrics["n_unlabelled"]) == (9, 54)
    assert result.metrics["val_top1"] == result.metrics["teacher_top1"]
    assert {"agreement", "linear_agreement", "kept"} < set(result.metrics)
    saved = backbones.load_classifier(run.folder("distill") / "classifier.safetensors")
    assert top1(extract(saved, data.test, SPEC), data.test.labels) == result.metrics["top1"]
    assert not (run.folder("distill") / "checkpoint.pt").exists()


def test_a_student_is_kept_unless_it_clearly_follows_less_than_a_linear_layer(toy):
    _, _, data = toy("run")
    parts = teachers.parts(mostly_unlabelled(data, 30, 600), 0)
    truth = coloured_squares(630, 0).labels
    features = np.eye(3, dtype=np.float32)[truth] + np.random.default_rng(0).normal(0, 0.1, (630, 3)).astype(np.float32)
    taught = teachers.Taught(lambda *_: None, 0.9, truth, features)
    wanted = truth[parts.unseen]
    for wrong, below in ((0, False), (2, False), (20, True)):
        student = np.where(np.arange(len(wanted)) < wrong, (wanted + 1) % 3, wanted)
        found = teachers.follows(taught, parts, student, 0)
        assert found.student == pytest.approx(1 - wrong / len(wanted)) and found.linear == 1
        assert found.clearly_below is below


def test_a_file_teaches_a_network_of_another_size(toy, tmp_path):
    run, recipe, data = toy("run")
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    file = tmp_path / "teacher.safetensors"
    backbones.save(file, backbones.Classifier(backbone, data.classes, SPEC), SPEC)
    recipe = changed(recipe, teacher=str(file), backbone="mobilenetv3_small_075", weights="random", size=24)
    result = distill.stage(run, recipe, data)
    made = backbones.load_classifier(run.folder("distill") / "classifier.safetensors")
    assert made.spec.size == 24 and made.backbone.settings.name == "mobilenetv3_small_075"
    assert str(file) in result.inputs and "val_top1" not in result.metrics
    settings = {"targets": ("onnx",), "precisions": ("int8",), "source": "distill", "calibration_images": 24}
    recipe = recipe.model_copy(update={"export": recipe.export.model_copy(update=settings)})
    export.stage(run, recipe, data)
    artifact = contract.read(run.folder("export/onnx-int8"))
    (row,) = check.stage(run, recipe, data).details["rows"]
    assert artifact.spec.size == 24 and row["n"] == len(data.test), "calibrated and compared at its own pixels"
    assert select(data, recipe, Deployed(made, made.spec)).judge.images.shape[1:] == (24, 24, 3)


def test_a_teacher_of_other_classes_is_refused_in_a_line(toy, tmp_path):
    run, recipe, data = toy("run")
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    file = tmp_path / "teacher.safetensors"
    backbones.save(file, backbones.Classifier(backbone, ("cat", "dog", "cow"), SPEC), SPEC)
    with pytest.raises(UserError, match="knows the classes cat, dog, cow; this run has red, green, blue"):
        distill.stage(run, changed(recipe, teacher=str(file)), data)


def test_a_timm_network_teaches_through_a_linear_layer(toy):
    run, recipe, data = toy("run")
    recipe = changed(recipe, teacher="resnet10t", teacher_weights="random")
    assert distill.stage(run, recipe, data).details["teacher"] == "resnet10t"
