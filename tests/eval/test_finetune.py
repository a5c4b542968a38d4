"""Fine-tuning: rates, schedule, crops, averaging, and that it learns."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from toy_run import coloured_squares

from softedge import backbones, config
from softedge.data.images import ArrayImages, FileImages
from softedge.errors import UserError
from softedge.eval import crops, finetune, optimising
from softedge.eval.crops import Crops, random_resized_crop
from softedge.records import InputSpec
from softedge.stages.finetune import stage

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_b0", "resnet18"])
def test_rates_fall_by_the_same_factor_from_the_head_to_the_stem(name):
    backbone = backbones.build(config.Backbone(name=name))
    classifier = backbones.Classifier(backbone, ("a", "b"), SPEC)
    groups = optimising.layer_groups(classifier, 1e-3, 0.5, 0.05)
    rate_of = {id(p): g["lr"] for g in groups for p in g["params"]}
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert len(rate_of) == len(list(classifier.parameters()))
    assert rate_of[id(classifier.head.weight)] == 1e-3
    depths = sorted({round(math.log(r / 1e-3, 0.5)) for r in rate_of.values()})
    assert depths == list(range(len(depths)))
    first = next(iter(backbone.net.parameters()))
    assert rate_of[id(first)] == min(rate_of.values())
    assert decay_of[id(classifier.head.bias)] == 0 and decay_of[id(first)] == 0.05


def test_rate_rises_linearly_and_falls_as_a_cosine_to_zero():
    rates = [optimising.rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert rates[99] < 0.001


def test_average_is_the_running_mean_of_the_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = optimising.Average(model, 0.9)
    expected = 0.0
    for step in range(1, 6):
        torch.nn.init.constant_(model.weight, float(step))
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)


def test_crops_have_the_area_and_aspect_asked_for_and_stay_inside():
    # Each pixel holds its own coordinates, so that the crop can be read off the result.
    grid = np.zeros((100, 80, 3), np.uint8)
    grid[..., 0], grid[..., 1] = np.arange(100)[:, None], np.arange(80)[None, :]
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = random_resized_crop(grid, 20, 0.25, rng).astype(float)
        height = (crop[-1, :, 0] - crop[0, :, 0]).mean() * 20 / 19
        width = (crop[:, -1, 1] - crop[:, 0, 1]).mean() * 20 / 19
        assert 0.25 * 8000 * 0.9 < height * width < 8000 * 1.1
        assert 0.7 < width / height < 1.4


def test_batches_are_a_function_of_seed_and_epoch_and_cover_each_image_once():
    pixels = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    images = ArrayImages(pixels, np.arange(20), [str(i) for i in range(20)])
    first = [list(Crops(images, SPEC, 5, seed=7).epoch(3)) for _ in range(2)]
    for (a, labels_a), (b, labels_b) in zip(*first):
        assert (a == b).all() and (labels_a == labels_b).all()
    assert sorted(torch.cat([labels for _, labels in first[0]]).tolist()) == list(range(20))
    other = torch.cat([labels for _, labels in Crops(images, SPEC, 5, seed=7).epoch(4)])
    assert other.tolist() != torch.cat([labels for _, labels in first[0]]).tolist()


def test_without_flip_nothing_is_mirrored():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :, 16:] = 200
    crops = Crops(ArrayImages(image, np.zeros(1), ["a"]), SPEC, 1, 0, min_area=0.9, flip=0.0)
    for epoch in range(8):
        batch, _ = next(iter(crops.epoch(epoch)))
        assert batch[0, :, -4:].float().mean() > batch[0, :, :4].float().mean()


def test_fine_tuning_from_scratch_learns_and_its_file_gives_the_same_accuracy(toy):
    run, recipe, data = toy("run")
    recipe = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"init": "random"})})
    result = stage(run, recipe, data)
    assert result.metrics["top1"] > 0.8
    again = backbones.load_classifier(run.folder("finetune") / "classifier.safetensors")
    from softedge.eval.features import extract
    from softedge.eval.knn import top1

    assert top1(extract(again, data.test, SPEC), data.test.labels) == result.metrics["top1"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fine_tuned_network_is_traced_to_the_same_graph_as_its_file(toy, tmp_path, precision):
    from softedge.export.deployed import Deployed
    from softedge.export.onnx import graph as onnx_graph

    run, recipe, data = toy("run")
    settings = recipe.finetune.model_copy(update={"min_steps": 1, "max_steps": 1, "precision": precision})
    backbone = finetune.initial(run, recipe, "ssl", 0)
    recipe = recipe.model_copy(update={"finetune": settings})
    classifier, _ = finetune.train(backbone, data, data.train, recipe, seed=0)
    backbones.save(tmp_path / "c.safetensors", classifier, SPEC)
    again = backbones.load_classifier(tmp_path / "c.safetensors")
    here, there = (onnx_graph.trace(Deployed.of(model, SPEC)) for model in (classifier, again))
    assert [node.op_type for node in here.graph.node] == [node.op_type for node in there.graph.node]


def test_training_resumes_with_the_threads_it_was_begun_with(tmp_path):
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"))
    classifier = backbones.Classifier(backbone, ("a", "b"), SPEC)
    optimizer = torch.optim.AdamW(classifier.parameters())
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    rest = classifier, optimizer, optimising.Average(classifier, 0.9), rng
    try:
        torch.set_num_threads(2)
        optimising._keep(tmp_path / "checkpoint.pt", *rest, [1.0, 0.5])
        torch.set_num_threads(1)
        assert optimising._resume(tmp_path / "checkpoint.pt", *rest) == [1.0, 0.5]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("between", [1, 10**6])
def test_a_stage_stopped_half_way_resumes_after_its_last_epoch_to_the_same_bits(toy, monkeypatch, between):
    """With checkpoints far apart: after the last training that was finished."""
    run, recipe, data = toy("run")
    changes = {"batch": max(1, len(data.train) // 4), "min_steps": 1, "max_steps": 0, "epochs": 3, "mixup": 0.2}
    recipe = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update=changes)})
    step, seen, last = torch.optim.AdamW.step, [], [10**9]

    class Stopped(Exception):
        pass

    def counted(self, *given, **more):
        seen.append(0)
        if len(seen) == last[0]:
            raise Stopped
        return step(self, *given, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(optimising, "STEPS_BETWEEN", between)
    whole = stage(run, recipe, data)
    weights, total = (run.folder("finetune") / "classifier.safetensors").read_bytes(), len(seen)
    assert not list(run.folder("finetune").glob("checkpoint*")) and total >= whole.metrics["steps"] > 8
    seen.clear()
    last[0] = total - 1  # in the last epoch of the training that is kept
    with pytest.raises(Stopped):
        stage(run, recipe, data, force=True)
    seen.clear()
    last[0] = 10**9
    again = stage(run, recipe, data)
    assert 0 < len(seen) <= whole.metrics["steps"], "the folds are not trained again"
    assert between > 1 or len(seen) < whole.metrics["steps"], "nor are the first epochs"
    assert (run.folder("finetune") / "classifier.safetensors").read_bytes() == weights
    assert again.metrics == whole.metrics and again.details["losses"] == whole.details["losses"]


def test_one_image_per_class_is_enough_to_train_and_measure(toy):
    from softedge.stages.labels import stage as labels
    from softedge.stages.probe import stage as probe

    run, recipe, data = toy("run")
    recipe = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"min_steps": 4, "max_steps": 4})})
    data = dataclasses.replace(data, train=data.train.subset(np.arange(3)))
    assert probe(run, recipe, data).metrics["n_train"] == 3
    result = stage(run, recipe, data)
    assert result.metrics["n_train"] == 3 and result.metrics["steps"] == 4 and math.isfinite(result.metrics["loss"])
    assert labels(run, recipe, data).metrics["n_test"] == 60


def test_the_progress_says_which_of_the_trainings_it_is(toy, monkeypatch):
    run, recipe, data = toy("run")
    words = []

    def progress(items, what, total=None, before=0):
        words.append(what)
        yield from items

    monkeypatch.setattr(optimising, "track", progress)
    assert stage(run, recipe, data).metrics["val_top1"] >= 0
    assert words == [f"finetune, training {number} of 4, step" for number in (1, 2, 3, 4)], "three folds, then all"


@pytest.mark.parametrize(
    ("test", "validation", "said"), [(1.0, 1.0, True), (0.0, 1.0, True), (1.0, 0.0, False), (1.0, None, False)]
)
def test_a_fine_tuning_below_the_probe_on_validation_images_says_so_whatever_the_test_images_say(
    toy, capsys, test, validation, said
):
    run, recipe, data = toy("run")
    values = {
        "stage": "probe",
        "name": "run",
        "started": "",
        "seconds": 0,
        "recipe": {},
        "inputs": {},
        "environment": {},
    }
    values["metrics"] = {"linear_top1": test, "n_train": 48} | ({} if validation is None else {"val_top1": validation})
    run.folder("probe").mkdir()
    (run.folder("probe") / "result.json").write_text(json.dumps(values))
    recipe = recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"min_steps": 1, "max_steps": 1})})
    result = stage(run, recipe, data)
    assert result.metrics["probe_top1"] == test and 0 < result.metrics["val_top1"] < 1
    line = (
        f"validation accuracy {result.metrics['val_top1']:.3f} after 1 step is below 1.000 of a linear layer on frozen"
    )
    printed = capsys.readouterr().err
    assert (line in printed) == said == ("linear layer" in printed)


def test_mixup_of_equal_images_is_plain_cross_entropy():
    torch.manual_seed(0)
    classifier = backbones.Classifier(backbones.build(config.Backbone(name="mobilenetv3_small_050")), ("a", "b"), SPEC)
    classifier.eval()
    images, labels = torch.randn(1, 3, 32, 32).expand(4, -1, -1, -1), torch.ones(4, dtype=torch.int64)
    plain = config.Finetune(label_smoothing=0.0)
    mixed = plain.model_copy(update={"mixup": 0.4})
    a = finetune._loss(classifier, images, labels, plain, np.random.default_rng(0))
    b = finetune._loss(classifier, images, labels, mixed, np.random.default_rng(0))
    assert a.item() == pytest.approx(b.item(), abs=1e-5)


def test_a_file_is_checked_against_the_checkpoint_it_was_exported_from(toy):
    from softedge.export import contract
    from softedge.records import Artifact
    from softedge.run import sha256, write_json
    from softedge.stages.check import exported_from

    run, _, _ = toy("run")
    for name in ("probe", "finetune"):
        run.folder(name).mkdir()
        (run.folder(name) / "classifier.safetensors").write_bytes(name.encode())
    made, unrecorded = run.folder("export/onnx-fp32"), run.folder("export/onnx-fp16")
    made.mkdir(parents=True)
    unrecorded.mkdir()
    write_json(unrecorded / contract.FILE, {"schema": contract.SCHEMA})
    old = json.loads((run.folder("data") / "result.json").read_text())
    tuned = run.folder("finetune") / "classifier.safetensors"
    old["inputs"] = {"finetune/classifier.safetensors": sha256(tuned)}
    write_json(made / "result.json", old)
    fp32, fp16 = (
        Artifact(folder / "model.onnx", "onnx", folder.name.removeprefix("onnx-"), "", 0, SPEC, ("a",))
        for folder in (made, unrecorded)
    )
    assert exported_from(run, fp32) == tuned
    assert exported_from(run, fp16) == run.folder("probe") / "classifier.safetensors"
    tuned.write_bytes(b"another")
    with pytest.raises(UserError, match="is not the one that export/onnx-fp32 was made from"):
        exported_from(run, fp32)
    tuned.unlink()
    with pytest.raises(UserError, match="classifier.safetensors is missing that export/onnx-fp32 was made from"):
        exported_from(run, fp32)
    (run.folder("finetune") / "begun.json").write_text("{}")
    with pytest.raises(UserError, match="which is not there: 'finetune' was interrupted; to go on, run: softedge fine"):
        exported_from(run, fp32)


@pytest.mark.parametrize("share", [1.0, 0.95])
def test_what_was_held_back_is_what_the_kept_network_was_not_trained_on(toy, monkeypatch, share):
    from softedge.stages import finetune as module

    run, recipe, data = toy("run")
    settings = recipe.finetune.model_copy(update={"labels": share, "min_steps": 1, "max_steps": 1})
    recipe = recipe.model_copy(update={"finetune": settings})
    squares = coloured_squares(400, 0)
    data = dataclasses.replace(data, train=squares, pretrain=squares)
    trained, train = [], module.train
    monkeypatch.setattr(
        module,
        "train",
        lambda backbone, data, images, *rest, **more: (
            trained.append({image.tobytes() for image in images.array}),
            train(backbone, data, images, *rest, **more),
        )[1],
    )
    result = stage(run, recipe, data)
    held = module.unseen(result, data)
    assert held is not None and len(trained) == 1
    assert not trained[0] & {image.tobytes() for image in held.array}
    assert len(trained[0]) + len(held) == result.metrics["n_train"] >= share * 390
    few = dataclasses.replace(data, train=squares.subset(range(60)))
    assert module.unseen(stage(run, recipe, few, force=True), few) is None


@pytest.mark.parametrize("method", ["epoch", "start"])
def test_a_photo_that_is_gone_is_one_line_with_its_name(tmp_path, monkeypatch, method):
    """Before the training, where crops are kept in memory; else in the epoch that needs it."""
    names = ["0.png", "1.png"]
    for name in names:
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    images = FileImages(tmp_path, names, np.array([0, 1]))
    if method == "epoch":
        monkeypatch.setattr(crops, "_KEEP_BYTES", 0)
        items = crops._Items(images, SPEC, seed=0, min_area=0.5, flip=0.5)
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png cannot be read any more"):
        items[(0, 1)] if method == "epoch" else crops._Items(images, SPEC, seed=0, min_area=0.5, flip=0.5)
