"""What ``softedge transfer`` chooses where a recipe leaves it open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from softedge.detection import planning
from softedge.detection.planning import TransferPlan
from softedge.detection.scenes import Scene, Scenes
from softedge.detection.settings import Transfer
from softedge.detection.tasks import COCO, VOC

CPU = torch.device("cpu")


def scenes(n: int, width: int = 640, height: int = 480) -> Scenes:
    one, no = np.array([[1, 1, 9, 9]], np.float32), np.zeros(1, bool)
    scene = Scene(1, Path("a.jpg"), width, height, one, np.zeros(1, np.int64), one[:, 0], no, no)
    return Scenes(("a",), (scene,) * n)


@pytest.mark.parametrize(("task", "n", "iterations"), [(VOC, 16_551, 24_000), (COCO, 117_266, 90_000)])
def test_iterations_on_the_papers_data_are_the_papers(task, n, iterations):
    assert planning.resolve(Transfer(), "mobilenetv3_small_050", task, scenes(n), CPU).iterations == iterations


def test_iterations_grow_with_the_pictures_to_the_power_of_two_thirds():
    few, many = (
        planning.resolve(Transfer(), "mobilenetv3_small_050", VOC, scenes(n), CPU).iterations for n in (160, 1280)
    )
    assert few == 1089 and many == pytest.approx(4 * few, rel=0.001)
    voc = planning.resolve(Transfer(), "mobilenetv3_small_050", VOC, scenes(117_266), CPU).iterations
    assert voc == pytest.approx(88_500, rel=0.01)  # COCO's 90,000 from VOC's 24,000


def test_a_mobile_network_gets_ssdlite_on_an_input_that_fits_the_pictures():
    chosen = planning.resolve(Transfer(), "mobilenetv3_small_050", VOC, scenes(160), CPU)
    assert (chosen.head, chosen.short_sides, chosen.batch, chosen.lr) == ("ssdlite", (320,), 16, 0.02)
    small = planning.resolve(Transfer(), "mobilenetv3_small_050", VOC, scenes(160, 120, 90), CPU)
    assert small.short_sides == (128,)


def test_an_r_cnn_head_on_a_cpu_gets_small_batches_and_the_rate_with_them():
    chosen = planning.resolve(Transfer(head="fpn"), "mobilenetv3_small_050", VOC, scenes(160, 4000, 3000), CPU)
    assert (chosen.short_sides, chosen.test_short_side, chosen.batch) == ((480,), 480, 2)
    assert chosen.lr == pytest.approx(0.02 * 2 / 16) and chosen.iterations == pytest.approx(1089 * 8, rel=0.001)


def test_what_a_recipe_says_is_left_as_it_is():
    given = Transfer(head="fpn", iterations=7, batch=3, lr=0.5, short_sides=(90, 100), test_short_side=70, warmup=50)
    assert planning.resolve(given, "resnet18", VOC, scenes(16_000), CPU) == given


def test_the_time_there_is_limits_iterations_that_a_recipe_leaves_open():
    settings = planning.resolve(Transfer(minutes=2), "mobilenetv3_small_050", VOC, scenes(160), CPU)
    plan = TransferPlan.made(settings, 0.5, CPU, given=False)
    assert (plan.wanted, plan.iterations) == (1089, 240)
    first, second = plan.lines(160)
    assert "ssdlite at 320 pixels, 240 iterations of 16 pictures (24 passes), about 2 min on this CPU" in first
    assert "1089 iterations would suit 160 pictures and take 9 min" in second and "transfer.minutes=10" in second
    assert TransferPlan.made(settings, 0.5, CPU, given=True).iterations == 1089
    assert TransferPlan.made(settings, 0.01, CPU, given=False).lines(160)[1:] == []


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    settings = planning.resolve(Transfer(), "mobilenetv3_small_050", VOC, scenes(160), CPU)
    plan = TransferPlan.made(settings, 0.25, CPU, given=False)
    assert TransferPlan.read(tmp_path) is None
    plan.write(tmp_path)
    assert TransferPlan.read(tmp_path) == plan
