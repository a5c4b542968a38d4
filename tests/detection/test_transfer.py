"""Detectors around a pretrained backbone: weights, heads, batches, and that training finds objects."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from voc_squares import squares, transfer_recipe

from softedge import backbones, config, registry
from softedge.detection import models, pictures, training, voc
from softedge.detection import transfer as detection
from softedge.detection.batches import Batches
from softedge.detection.features import features
from softedge.detection.inference import detect, to_detections
from softedge.detection.scenes import Scene
from softedge.detection.settings import Transfer
from softedge.detection.start import transfer
from softedge.errors import Interrupted, UserError
from softedge.records import InputSpec

SPEC = InputSpec(64, 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def small(name: str = "mobilenetv3_small_050") -> backbones.Backbone:
    return backbones.build(config.Backbone(name=name))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_b0", "resnet18"])
def test_the_feature_maps_are_those_of_the_pretrained_network(name):
    backbone = small(name).eval()
    net = features(backbone, (1, 2, 3, 4)).eval()
    state = backbone.net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = net(images)
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]
    if name == "resnet18":  # nothing lies between the last map and the pooled features
        assert torch.allclose(maps[-1].mean((2, 3)), backbone(images), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "head", "masks"),
    [
        ("mobilenetv3_small_050", "fpn", True),
        ("efficientnet_b0", "ssdlite", False),
        ("mobilenetv3_small_050", "ssdlite", False),
        ("resnet18", "c4", False),
        ("resnet18", "c4", True),
        ("resnet18", "fpn", False),
    ],
)
def test_every_head_trains_and_detects(name, head, masks):
    settings = Transfer(rois=16, test_short_side=64)
    model = models.build(small(name), head, 2, masks, settings, SPEC, (64,))
    images = [torch.rand(3, 80, 64), torch.rand(3, 64, 96)]
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([2])}
    if masks:
        targets = [{**target, "masks": torch.ones(1, *i.shape[1:], dtype=torch.uint8)} for i in images]
    else:
        targets = [target, target]
    losses = model.train()(images, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(v) for v in losses.values())
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    with torch.no_grad():
        output = model.eval()(images[:1])[0]
    found = to_detections(output)
    assert len(found.boxes) == len(found.scores) == len(found.labels) <= 100
    assert not masks or len(found.masks) == len(found.boxes)


def test_the_c4_head_is_the_pretrained_last_stage_and_a_batch_norm():
    backbone = small("resnet18")
    model = models.build(backbone, "c4", 20, True, Transfer(), SPEC, (64,))
    stage = model.roi_heads.box_head.stage
    assert torch.equal(stage.layer4[0].conv1.weight, backbone.net.layer4[0].conv1.weight)
    assert model.roi_heads.mask_head is stage and isinstance(stage.norm, torch.nn.BatchNorm2d)
    assert model.roi_heads.box_predictor.cls_score.in_features == 512
    stored = models.without_shared(model)
    assert not any(key.startswith("roi_heads.mask_head") for key in stored)
    assert len({v.data_ptr() for v in stored.values() if v.numel()}) == sum(v.numel() > 0 for v in stored.values())


def test_norm_layers_get_no_weight_decay():
    model = models.build(small(), "fpn", 2, False, Transfer(), SPEC, (64,))
    decayed, plain = models.parameter_groups(model, 1e-4)
    assert decayed["weight_decay"] == 1e-4 and plain["weight_decay"] == 0
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert any(p is norm.weight for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_the_rate_is_mocos_schedule():
    def at(iteration):
        return training.rate(iteration, 24000, 100, (3 / 4, 11 / 12))

    assert at(0) == pytest.approx(0.001) and at(50) == pytest.approx(0.5005) and at(100) == 1
    assert at(17999) == 1 and at(18000) == pytest.approx(0.1) and at(22000) == pytest.approx(0.01)


def test_batches_after_a_resume_are_those_of_an_uninterrupted_run(tmp_path):
    train, _ = voc.read(squares(tmp_path / "voc", {"train": 5, "val": 1}))
    batches = Batches(train, 2, seed=3, masks=False, crop=True, workers=0)
    whole = list(batches.from_iteration(0, 6))
    late = list(batches.from_iteration(4, 6))
    for (images, targets), (again, same) in zip(whole[4:], late):
        assert all(torch.equal(a, b) for a, b in zip(images, again))
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, same))


def test_boxes_stay_on_their_objects_under_flips_and_crops(tmp_path):
    train, _ = voc.read(squares(tmp_path / "voc", {"train": 6, "val": 1}))
    names = train.classes
    checked = 0
    for images, targets in Batches(train, 3, seed=0, masks=False, crop=True, workers=0).from_iteration(0, 8):
        for image, target in zip(images, targets):
            for (x1, y1, x2, y2), label in zip(target["boxes"].round().int().tolist(), target["labels"].tolist()):
                if min(x2 - x1, y2 - y1) < 6:
                    continue
                inside = image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean((1, 2))
                assert int(inside.argmax()) == (0 if names[label - 1] == "red" else 2)
                assert inside.max() > 0.8
                checked += 1
    assert checked > 20


def test_an_image_of_another_size_than_annotated_is_one_clear_line(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    empty = np.zeros(0)
    scene = Scene(1, tmp_path / "a.png", 30, 40, empty.reshape(0, 4), empty, empty, empty, empty)
    with pytest.raises(UserError, match="40 x 30 pixels, its annotation says 30 x 40"):
        pictures.pixels(scene)


def test_a_killed_transfer_goes_on_and_ends_with_the_same_numbers(toy, tmp_path, monkeypatch):
    folder = squares(tmp_path / "voc", {"train": 8, "val": 4})
    run, recipe, _ = toy("whole")
    recipe = transfer_recipe(recipe, iterations=6, checkpoint_every=2, evaluate_every=3)
    whole = detection.train(run, recipe, "voc", folder)
    other, _, _ = toy("other")
    original = training.DetectorTraining._step

    def dies(self, *args):
        if len(self.losses) == 5:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(training.DetectorTraining, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        detection.train(other, recipe, "voc", folder)
    assert (other.folder("transfer/voc") / "last.pt").is_file()
    monkeypatch.setattr(training.DetectorTraining, "_step", original)
    resumed = detection.train(other, recipe, "voc", folder)
    assert resumed.details["losses"] == whole.details["losses"]
    assert resumed.metrics == whole.metrics and resumed.details["curve"] == whole.details["curve"]
    assert not (other.folder("transfer/voc") / "last.pt").exists()


def test_random_weights_stand_in_a_stage_of_their_own(toy, tmp_path):
    folder = squares(tmp_path / "voc", {"train": 4, "val": 2})
    run, recipe, _ = toy("run")
    result = detection.train(run, transfer_recipe(recipe, iterations=1), "voc", folder, init="random")
    assert result.stage == "transfer/voc-random" and result.details["init"] == "random"
    assert {"AP", "AP50", "AP75", "voc07_AP50", "voc12_AP50"} <= set(result.metrics)


def test_an_unknown_task_or_folder_is_one_clear_line(toy, tmp_path):
    run, recipe, _ = toy("run")
    with pytest.raises(UserError, match="unknown task 'vox'; did you mean 'voc'"):
        detection.train(run, recipe, "vox", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        detection.train(run, recipe, "coco", tmp_path / "nowhere")
    assert set(registry.TASKS) == {"voc", "coco"}


@pytest.mark.slow
def test_ssdlite_learns_to_find_squares(toy, tmp_path):
    folder = squares(tmp_path / "voc", {"train": 24, "val": 12})
    run, recipe, _ = toy("run")
    result = detection.train(run, transfer_recipe(recipe, iterations=300), "voc", folder)
    assert result.metrics["AP50"] > 0.5


def test_detections_carry_classes_without_the_background_and_masks_as_codes():
    output = {
        "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        "labels": torch.tensor([3]),
        "scores": torch.tensor([0.7]),
        "masks": torch.full((1, 1, 6, 5), 0.6),
    }
    found = to_detections(output)
    assert found.labels.tolist() == [2] and found.masks[0]["size"] == [6, 5]


def test_detecting_leaves_the_training_mode_as_it_was(tmp_path):
    _, test = voc.read(squares(tmp_path / "voc", {"train": 1, "val": 2}))
    model = models.build(small(), "ssdlite", 2, False, Transfer(), SPEC, (96,)).train()
    assert len(detect(model, test)) == 2 and model.training


def test_a_trained_detector_is_rebuilt_from_its_file(toy, tmp_path):
    from softedge.detection.deployed import load

    folder = squares(tmp_path / "voc", {"train": 4, "val": 2})
    run, recipe, _ = toy("run")
    detection.train(run, transfer_recipe(recipe, iterations=3), "voc", folder)
    again = load(run.folder("transfer/voc"))
    _, test = voc.read(folder)
    first = detect(again.model, test)
    scores = registry.lookup(registry.TASKS, "voc", "task").score(test, first, False)
    assert scores["AP"] == pytest.approx(run.result("transfer/voc").metrics["AP"])


@pytest.mark.parametrize(
    ("recipe", "task", "falls"),
    [
        ("transfer-voc-c4", "voc", (18_000, 22_000, 24_000)),
        ("transfer-coco-c4-1x", "coco", (60_000, 80_000, 90_000)),
        ("transfer-coco-c4-2x", "coco", (120_000, 160_000, 180_000)),
    ],
)
def test_the_papers_schedules_are_those_of_mocos_configurations(recipe, task, falls):
    settings, asked = config.load(recipe).plugin(Transfer), registry.lookup(registry.TASKS, task, "task")
    first, second, end = falls

    def at(iteration):
        return settings.lr * training.rate(iteration, settings.iterations, settings.warmup, asked.milestones)

    assert settings.iterations == end and (settings.head, settings.batch, settings.test_short_side) == ("c4", 16, 800)
    assert at(first - 1) == 0.02 and at(first) == pytest.approx(0.002) == at(second - 1)
    assert at(second) == pytest.approx(0.0002) == at(end - 1)
    assert settings.short_sides == asked.short_sides  # what a ResNet gets without any recipe, too
    assert asked.iterations == (24_000 if task == "voc" else 90_000)


def test_a_transfer_recipe_runs_on_a_resnet_and_set_still_wins(toy, tmp_path):
    folder = squares(tmp_path / "voc", {"train": 4, "val": 2})
    run, recipe, _ = toy("run")
    backbone = config.Backbone(name="resnet18")
    (run.root / "recipe.toml").write_text(config.to_toml(recipe.model_copy(update={"backbone": backbone})))
    backbones.save(run.folder("pretrain") / "backbone.safetensors", backbones.build(backbone), SPEC)
    short = ["iterations=2", "batch=2", "short_sides=[96]", "test_short_side=96", "rois=8", "workers=0"]
    overrides = [f"transfer.{value}" for value in short]
    result = transfer(run.root, "voc", folder, set=overrides, recipe="transfer-voc-c4")
    assert (result.details["head"], result.metrics["iterations"]) == ("c4", 2)
    assert result.recipe["transfer"]["lr"] == 0.02 and result.recipe["transfer"]["warmup"] == 100
    assert {"AP", "AP50", "AP75", "voc07_AP50"} <= set(result.metrics)
    with pytest.raises(UserError, match="the c4 head is for ResNets"):
        mobile, _, _ = toy("mobile")
        (mobile.root / "recipe.toml").write_text(config.to_toml(recipe))
        transfer(mobile.root, "voc", folder, recipe="transfer-voc-c4")


def test_a_stop_before_the_first_checkpoint_loses_nothing(toy, tmp_path, monkeypatch):
    folder = squares(tmp_path / "voc", {"train": 8, "val": 4})
    run, recipe, _ = toy("whole")
    recipe = transfer_recipe(recipe, iterations=4, checkpoint_every=500)
    whole = detection.train(run, recipe, "voc", folder)
    other, _, _ = toy("other")
    original = training.DetectorTraining._step

    def stopped(self, iteration, images, targets):
        original(self, iteration, images, targets)
        if iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.DetectorTraining, "_step", stopped)
    with pytest.raises(Interrupted, match="iteration 2 of 4 is saved; run the same command again"):
        detection.train(other, recipe, "voc", folder)
    monkeypatch.setattr(training.DetectorTraining, "_step", original)
    resumed = detection.train(other, recipe, "voc", folder)
    assert resumed.details["losses"] == whole.details["losses"] and resumed.metrics == whole.metrics


def test_a_sigterm_for_the_loaders_too_ends_a_training_with_a_checkpoint(toy, tmp_path, monkeypatch):
    folder = squares(tmp_path / "voc", {"train": 8, "val": 4})
    run, recipe, _ = toy("run")
    recipe = transfer_recipe(recipe, iterations=40, checkpoint_every=500, workers=1)
    original = training.DetectorTraining._step

    def stopped(self, iteration, images, targets):
        original(self, iteration, images, targets)
        if iteration == 1:
            group = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            assert len(group) > 1
            subprocess.run(["kill", "-TERM", *map(str, group)], check=True)  # torch's loaders know who sends it
            time.sleep(0.5)

    monkeypatch.setattr(training.DetectorTraining, "_step", stopped)
    with pytest.raises(Interrupted, match="of 40 is saved; run the same command again"):
        detection.train(run, recipe, "voc", folder)


def test_what_goes_wrong_while_scoring_does_not_cost_the_training(toy, tmp_path, monkeypatch):
    folder = squares(tmp_path / "voc", {"train": 4, "val": 2})
    run, recipe, _ = toy("run")
    recipe = transfer_recipe(recipe, iterations=2)
    score = detection._Transfer._score

    def fails(*_):
        raise UserError("a picture that went away")

    monkeypatch.setattr(detection._Transfer, "_score", fails)
    with pytest.raises(UserError, match="went away"):
        detection.train(run, recipe, "voc", folder)
    assert (run.folder("transfer/voc") / "detector.safetensors").is_file()
    monkeypatch.setattr(detection._Transfer, "_score", score)
    monkeypatch.setattr(training.DetectorTraining, "_step", fails)  # not one more iteration
    assert "AP" in detection.train(run, recipe, "voc", folder).metrics


def test_a_truncated_test_picture_is_left_out_before_the_training(toy, tmp_path):
    folder = squares(tmp_path / "voc", {"train": 4, "val": 3})
    path = folder / "JPEGImages/val1.png"
    path.write_bytes(path.read_bytes()[:900])
    run, recipe, _ = toy("run")
    result = detection.train(run, transfer_recipe(recipe, iterations=1), "voc", folder)
    assert result.metrics["n_test"] == 2
    assert any("val1.png: truncated" in line for line in result.details["notices"])
    from softedge.detection.trained import Trained

    _, test = Trained(run.folder("transfer/voc"), recipe).scenes
    assert [scene.path.stem for scene in test.scenes] == ["val0", "val2"]


def test_a_detector_that_finds_nothing_is_cautioned_against(toy, tmp_path, capsys, monkeypatch):
    folder = squares(tmp_path / "voc", {"train": 4, "val": 2})
    run, recipe, _ = toy("run")
    monkeypatch.setattr(detection._Transfer, "_score", lambda *_: {"AP": 0.0, "AP50": 0.0, "AP50_per_class": {}})
    result = detection.train(run, transfer_recipe(recipe, iterations=1), "voc", folder)
    assert "AP 0.000: this detector finds nothing" in result.details["cautions"][0]
    assert "caution: AP 0.000" in capsys.readouterr().err


def test_without_settings_the_plan_is_told_and_kept_in_the_time_there_is(toy, tmp_path, capsys):
    folder = squares(tmp_path / "voc", {"train": 6, "val": 2})
    run, recipe, _ = toy("run")
    open_ = {"iterations": 0, "minutes": 0.02, "head": "auto", "short_sides": (), "batch": 0}
    result = detection.train(run, transfer_recipe(recipe, **open_), "voc", folder)
    plan = result.details["plan"]
    assert (plan["head"], plan["side"], plan["batch"]) == ("ssdlite", 96, 16)
    assert plan["iterations"] == result.metrics["iterations"] < plan["wanted"] == 122
    assert f"transfer: ssdlite at 96 pixels, {plan['iterations']} iterations of 16" in capsys.readouterr().err
