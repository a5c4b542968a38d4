"""The stage: who teaches, on which images, how it is judged, and that it helps where labels are few."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import timm
import torch
from toy_run import SPEC, coloured_squares

from softedge import backbones, config
from softedge.data.images import ArrayImages
from softedge.errors import UserError
from softedge.eval import linear
from softedge.eval.distillation import ViewClassifier
from softedge.eval.features import extract, softmax
from softedge.eval.knn import top1
from softedge.export import contract
from softedge.export.deployed import Deployed
from softedge.quantize.selection import select
from softedge.records import Result
from softedge.run import write_json
from softedge.ssl.vocabulary import Vocabulary
from softedge.stages import check, distill, export, following, spreading, teachers
from softedge.stages.opening import replaced
from softedge.weights import hub


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


def test_few_labels_spread_beside_a_linear_layer_and_many_are_taught_by_the_best_classifier(toy):
    run, recipe, data = toy("run")
    few = mostly_unlabelled(data, 9, 60)
    assert teachers.resolve(run, recipe, few) == "ensemble"
    parts = teachers.parts(few, recipe.seed)
    taught = teachers.make(run, changed(recipe, teacher="ensemble"), parts)
    assert set(taught.details["members"]) == {"spread", "linear"}
    weights = taught.details["weights"]
    assert sum(weights.values()) == 1 and taught.details["taught_by"] == [name for name in weights if weights[name]]
    assert taught.details["pixels"] == {recipe.backbone.name: 32}
    assert list(taught.details["words"]) == ["0.0", "0.5", "1.0"] and sum(taught.details["words"].values()) == 1
    rows = np.flatnonzero(parts.labels >= 0)
    np.testing.assert_array_equal(taught.answers[rows], parts.labels[rows])
    assert taught.answers.shape == (69,) and taught.features.shape[0] == 69
    with pytest.raises(UserError, match="softedge probe"):
        teachers.resolve(run, recipe, data)


def test_with_some_labels_an_ensemble_teaches_without_those_that_are_clearly_worse(toy):
    run, recipe, data = toy("run")
    data = mostly_unlabelled(data, 303, 303)
    assert teachers.resolve(run, recipe, data) == "ensemble"
    recipe, parts = changed(recipe, teacher="ensemble"), teachers.parts(data, recipe.seed)
    features, _ = spreading.features(run, recipe, data.pretrain, data.spec)
    taught = teachers.make(run, recipe, parts)
    assert set(taught.details["members"]) == {"spread", "linear"} == set(taught.details["taught_by"])
    rows = np.flatnonzero(parts.labels >= 0)
    layer = linear.fit(features[rows], parts.labels[rows], 3, recipe.probe.weight_decays, recipe.seed)
    product = softmax(layer(features)) * teachers.make(run, changed(recipe, teacher="spread"), parts).probabilities
    answers = product.argmax(1)
    answers[rows] = parts.labels[rows]
    np.testing.assert_array_equal(taught.answers, answers)
    truth = data.pretrain.labels[parts.validation]
    assert taught.top1 == (answers[parts.validation] == truth).mean()

    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    wrong = backbones.Classifier(backbone, data.classes, SPEC).eval()  # one class for every image
    wrong.head.weight.data.zero_()
    wrong.head.bias.data[:] = torch.tensor([9.0, 0.0, 0.0])
    run.folder("finetune").mkdir()
    backbones.save(run.folder("finetune") / "classifier.safetensors", wrong, SPEC)
    result = Result("finetune", run.name, {"val_top1": 0.3}, {"seed": 0}, {}, {}, "", 0.0)
    write_json(run.folder("finetune") / "result.json", result.to_dict())
    again = teachers.make(run, recipe, parts)
    assert again.details["members"]["finetune"] == (truth == 0).mean()
    assert again.details["taught_by"] == taught.details["taught_by"], "clearly worse than the others"
    np.testing.assert_array_equal(again.answers, taught.answers)


def test_labels_of_all_images_are_spread_without_a_word_of_confidence(toy):
    run, recipe, data = toy("run")
    few = mostly_unlabelled(data, 30, 0)
    taught = teachers.make(run, changed(recipe, teacher="spread"), teachers.parts(few, 0))
    assert "confidence" not in taught.details and taught.top1 is not None
    np.testing.assert_array_equal(taught.answers, few.pretrain.labels)


def test_only_a_run_from_given_weights_spreads_over_the_features_of_others(toy):
    _, recipe, _ = toy("run")
    assert spreading.networks(recipe) == ("run", "words")
    given = replaced(recipe, backbone={"name": "tf_efficientnet_lite0", "weights": "package"})
    assert spreading.networks(given) == ("run", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "words")
    assert spreading.networks(changed(given, spread_over=("resnet18", "run", "resnet18"))) == ("resnet18", "run")
    with pytest.raises(UserError, match="distill.spread_over: unknown network 'resnet81'; did you mean 'resnet18'"):
        spreading.networks(changed(given, spread_over=("resnet81",)))


def test_features_of_several_networks_stand_side_by_side_each_of_unit_length(toy):
    run, recipe, data = toy("run")
    images = data.pretrain.subset(np.arange(5))
    found, details = spreading.features(
        run, changed(recipe, spread_over=("run", "tf_efficientnet_lite1"), teacher_size=32), images, SPEC
    )
    other = backbones.build(config.Backbone(name="tf_efficientnet_lite1", weights="package"))
    half = dataclasses.replace(SPEC, size=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    own = dataclasses.replace(SPEC, size=32, resize=32)
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    parts = [extract(backbone, images, own), extract(other, images, half)]
    wanted = np.concatenate([part / np.sqrt((part**2).sum(1, keepdims=True)) for part in parts], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert details == {"pixels": {recipe.backbone.name: 32, "tf_efficientnet_lite1": 32}}
    with pytest.raises(UserError, match="no weights of it here"):
        spreading.features(run, changed(recipe, spread_over=("resnet10t",)), images, SPEC)


def test_one_seed_gives_one_network_whatever_was_drawn_before(toy):
    run, recipe, data = toy("run")
    data = mostly_unlabelled(data, 9, 60)
    file = run.folder("distill") / "classifier.safetensors"
    distill.stage(run, changed(recipe), data)
    once = file.read_bytes()
    torch.manual_seed(12345)
    torch.randn(7)
    distill.stage(run, changed(recipe), data, force=True)
    assert file.read_bytes() == once


def test_images_are_described_by_the_words_that_are_found_among_them(toy):
    run, _, data = toy("run")
    images = data.pretrain.subset(np.arange(40))
    found = spreading.words(images, 32)
    assert found.shape == (40, 256) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-4)
    pixels = torch.from_numpy(images.prepared(dataclasses.replace(SPEC, size=32, resize=32))).permute(0, 3, 1, 2)
    vocabulary = Vocabulary(400, 6, 3, 32, 256, scales=2, whitening=0.75)
    vocabulary.fit((pixels / 255 - 0.5) / 0.25, 0)
    np.testing.assert_allclose(found, vocabulary((pixels / 255 - 0.5) / 0.25), atol=1e-3)
    assert spreading.described_at(run, SPEC) == 32, "of a run that does not say how large its images are"


def test_the_result_says_how_the_network_and_its_teacher_were_judged(toy):
    run, recipe, data = toy("run")
    data = mostly_unlabelled(data, 9, 60)
    result = distill.stage(run, changed(recipe), data)
    assert (result.metrics["n_train"], result.metrics["n_unlabelled"]) == (9, 54)
    assert result.metrics["val_top1"] == result.metrics["teacher_top1"]
    assert result.details["validated"] == "teacher"
    assert {"agreement", "linear_agreement", "kept"} < set(result.metrics)
    saved = backbones.load_classifier(run.folder("distill") / "classifier.safetensors")
    assert top1(extract(saved, data.test, SPEC), data.test.labels) == result.metrics["top1"]
    assert not (run.folder("distill") / "checkpoint.pt").exists()


def test_a_student_is_kept_unless_it_clearly_follows_less_than_a_linear_layer(toy):
    _, _, data = toy("run")
    parts = teachers.parts(mostly_unlabelled(data, 30, 600), 0)
    truth = coloured_squares(630, 0).labels
    taught = teachers.Taught(lambda *_: None, 0.9, probabilities=np.eye(3)[truth])
    wanted = truth[parts.unseen]
    for wrong, below in ((0, False), (2, False), (20, True)):
        student = np.where(np.arange(len(wanted)) < wrong, (wanted + 1) % 3, wanted)
        found = following.follows(taught, parts, student, wanted, 0)
        assert found.student == pytest.approx(1 - wrong / len(wanted)) and found.linear == 1
        assert found.clearly_below is below


def test_the_linear_layer_that_a_student_is_compared_with_is_the_runs_own_and_no_part_of_the_teacher(toy):
    run, recipe, data = toy("run")
    parts = teachers.parts(mostly_unlabelled(data, 9, 60), recipe.seed)
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    features = extract(backbone, parts.data.pretrain.subset(np.arange(9)), SPEC)
    unseen = parts.data.pretrain.subset(parts.unseen)
    layer = linear.fit(features, parts.labels[:9], 3, (1e-2,), recipe.seed)
    wanted = layer(extract(backbone, unseen, SPEC)).argmax(1)
    np.testing.assert_array_equal(following.plainly(run, parts, recipe.seed), wanted)


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


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [("vit_small_patch14_dinov2.lvd142m", 0, 32), ("vit_tiny_patch16_224", 48, 48), ("levit_128s", 64, 64)],
)
def test_a_network_of_fixed_pixels_teaches_too(toy, name, size, seen):
    run, recipe, data = toy("run")
    data = mostly_unlabelled(data, 9, 20)
    recipe = changed(recipe, teacher=name, teacher_weights="random", teacher_size=size, batch=4)
    assert distill.stage(run, recipe, data).details["teacher"] == name
    taught = teachers.make(run, recipe, teachers.parts(data, recipe.seed))
    assert isinstance(taught.teacher, ViewClassifier) and taught.teacher.classifier.spec.size == seen


@pytest.fixture
def published(monkeypatch) -> dict[str, torch.Tensor]:
    """Weights of a small vision transformer for 224 pixels, as timm's hub would give them."""
    torch.manual_seed(5)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    monkeypatch.setattr(hub, "unavailable", lambda name: "")
    monkeypatch.setattr(hub, "state", lambda name: dict(state))
    return state


def test_a_vision_transformer_with_weights_sees_their_pixels_or_its_positions_are_interpolated(toy, published):
    run, recipe, data = toy("run")
    name, images = "vit_tiny_patch16_224", data.pretrain.subset(np.arange(4))
    taught = teachers.make(
        run,
        changed(recipe, teacher=name, teacher_weights="imagenet"),
        teachers.parts(mostly_unlabelled(data, 9, 0), recipe.seed),
    )
    assert isinstance(taught.teacher, ViewClassifier) and taught.teacher.classifier.spec.size == 224
    assert torch.equal(taught.teacher.classifier.backbone.net.state_dict()["pos_embed"], published["pos_embed"])

    over = changed(recipe, spread_over=(name,), teacher_size=64)
    found, details = spreading.features(run, over, images, SPEC)
    assert details == {"pixels": {name: 64}}
    net = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    net.load_state_dict({key: value for key, value in published.items() if not key.startswith("head.")})
    with torch.no_grad():
        seen = images.prepared(dataclasses.replace(SPEC, size=64, resize=64, interpolation="bicubic"))
        wanted = net(torch.from_numpy(seen / 127.5 - 1).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(found, wanted / wanted.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_pixels_that_a_teacher_cannot_see_are_refused_with_its_own(toy, published):
    run, recipe, data = toy("run")
    over = changed(recipe, spread_over=("vit_tiny_patch16_224",), teacher_size=50)
    with pytest.raises(UserError, match=r"images of 50 pixels .* use its own: --set distill.teacher_size=224"):
        spreading.features(run, over, data.pretrain, SPEC)
