"""Was pretraining worth it: statistics, sentences, and the stage on generated images."""

from __future__ import annotations

import math
import statistics
from typing import ClassVar

import numpy as np
import pytest

from softedge import registry
from softedge.eval.labels_verdict import compare, comparisons, mean_and_interval, verdict
from softedge.export.base import Format
from softedge.records import Precision
from softedge.stages.labels import stage as labels


def row(init: str, fraction: float, values: list[float], method: str = "finetune", file: str = "pytorch") -> dict:
    return {
        "init": init,
        "method": method,
        "file": file,
        "fraction": fraction,
        "n_labels": int(1000 * fraction),
        "top1": values,
        "mean": sum(values) / len(values),
    }


def test_the_interval_is_student_t_on_three_seeds():
    values = [0.50, 0.56, 0.53]
    found = mean_and_interval(values)
    # 4.3027 is the 97.5 % quantile of Student's t with two degrees of freedom, from the printed tables.
    assert found.mean == pytest.approx(0.53)
    assert found.half_width == pytest.approx(4.3027 * statistics.stdev(values) / math.sqrt(3), rel=1e-4)


def test_the_gain_is_paired_by_seed():
    # Both sides swing by 20 points with the draw of the labels; the gain is 5 points for each draw.
    gain, judgement = compare([0.45, 0.55, 0.66], [0.40, 0.50, 0.60])
    assert judgement == "helped" and gain.mean == pytest.approx(0.0533, abs=1e-4)
    assert compare([0.40, 0.50, 0.60], [0.45, 0.55, 0.66])[1] == "hurt"
    assert compare([0.40, 0.60, 0.50], [0.50, 0.50, 0.50])[1] == "not shown"


def test_no_interval_of_a_gain_is_beyond_100_points_and_two_seeds_are_said_to_be_few():
    """Student's t with one degree of freedom: 41 points more on 40 images, and +-83 for the interval."""
    for values in ([0.175, 0.30], [0.65, 0.05]):
        rows = [row("random", 1.0, values), row("ssl", 1.0, [0.65, 0.65])]
        (compared,) = comparisons(rows)
        assert -1 <= compared["low"] <= compared["gain"] <= compared["high"] <= 1
    assert "labels.seeds=3" in verdict(rows)["headline"]
    assert "labels.seeds" not in verdict([row("random", 1.0, [0.2, 0.5, 0.4]), row("ssl", 1.0, [0.4] * 3)])["headline"]


def test_the_headline_says_yes_partly_no_or_not_shown():
    scratch = [row("random", f, [0.50, 0.51, 0.52]) for f in (0.01, 1.0)]
    better, worse, equal = [0.60, 0.61, 0.62], [0.40, 0.41, 0.42], [0.45, 0.51, 0.57]

    def answer(few: list[float], all_: list[float]) -> dict:
        return verdict([*scratch, row("ssl", 0.01, few), row("ssl", 1.0, all_)])

    assert answer(better, better)["answer"] == "yes"
    assert answer(better, equal)["answer"] == "partly"
    assert answer(worse, equal)["answer"] == "no"
    assert answer(equal, equal)["answer"] == "not shown"
    assert answer(better, equal)["headline"] == (
        "Pretraining was worth it in part: it helped fine-tuning at 1 % of the labels; "
        "no difference could be shown at 100 %."
    )
    assert answer(worse, worse)["headline"] == "Pretraining was not worth it: it hurt fine-tuning at 1 % and 100 %."


def test_the_headline_also_says_what_differs_for_the_linear_layer():
    equal, scratch = [0.45, 0.51, 0.57], [0.50, 0.51, 0.52]
    rows = [row("random", 1.0, scratch), row("ssl", 1.0, equal)]
    probes = [row("random", f, scratch, method="probe") for f in (0.01, 0.1, 1.0)]
    probes += [row("ssl", 0.01, [0.6, 0.61, 0.62], method="probe"), row("ssl", 0.1, equal, method="probe")]
    probes += [row("ssl", 1.0, [0.4, 0.41, 0.42], method="probe")]
    found = verdict([*rows, *probes])
    assert found["answer"] == "not shown"
    assert found["headline"].endswith(
        "no difference could be shown at 100 %. A linear layer on frozen features gained at 1 % and lost at 100 %."
    )


def test_a_sentence_carries_the_numbers_it_is_computed_from():
    rows = [row("random", 0.01, [0.50, 0.52, 0.51]), row("ssl", 0.01, [0.60, 0.63, 0.61])]
    (sentence,) = verdict(rows)["sentences"]
    assert sentence.startswith(
        "With 1 % of the labels (10 images), fine-tuning reaches 51.0 % from scratch and 61.3 % with pretrained "
        "weights: +10.3 points (95 % interval "
    )
    assert sentence.endswith("3 seeds).")


def test_int8_rows_are_kept_out_of_the_verdict_in_pytorch():
    rows = [row("random", 1.0, [0.5, 0.5]), row("ssl", 1.0, [0.6, 0.6])]
    quantized = [row("random", 1.0, [0.5, 0.5], file="onnx-int8"), row("ssl", 1.0, [0.1, 0.1], file="onnx-int8")]
    assert verdict(rows + quantized) == verdict(rows)


def test_a_killed_stage_goes_on_from_its_cells_and_gives_the_same_rows(toy, monkeypatch):
    run, recipe, data = toy("run")
    recipe = recipe.model_copy(
        update={
            "finetune": recipe.finetune.model_copy(update={"min_steps": 4, "max_steps": 4}),
            "labels": recipe.labels.model_copy(update={"fractions": (1.0,)}),
        }
    )
    whole = labels(run, recipe, data)
    other, _, _ = toy("other")
    from softedge.eval import finetune

    trained, original = [], finetune.train

    def dies_at_the_second(*args, **kwargs):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(finetune, "train", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        labels(other, recipe, data)
    kept = len(list((other.folder("labels") / "cells").glob("*.json")))
    assert kept >= 1
    counted = []
    monkeypatch.setattr(finetune, "train", lambda *a, **k: counted.append(1) or original(*a, **k))
    resumed = labels(other, recipe, data)
    assert len(counted) == 3  # of 2 starts x 2 seeds, one was done
    assert resumed.details["rows"] == whole.details["rows"]
    assert {r["init"] for r in resumed.details["rows"]} == {"random", "ssl"}
    assert resumed.metrics["seeds"] == 2


shipped: list[bool] = []


class WrongWay(Format):
    """A format whose int8 file predicts the last class for every image."""

    name = "onnx"
    precisions: ClassVar = {"int8": Precision(8, 8)}

    def missing(self) -> None:
        return None

    def convert(self, deployed, precision, calibration, out):
        assert precision == "int8" and len(calibration) == 48
        shipped.append(deployed.shipped)
        return len(deployed.labels)

    def load(self, artifact):
        return lambda images: np.eye(artifact, dtype=np.float32)[np.full(len(images), artifact - 1)]

    def runtime(self):
        return "none"


def only_probes(recipe):
    asked = recipe.labels.model_copy(update={"fractions": (1.0,), "methods": ("probe",), "int8": "onnx"})
    return recipe.model_copy(update={"labels": asked})


def test_the_int8_file_itself_is_measured_where_asked(toy, monkeypatch):
    run, recipe, data = toy("run")
    monkeypatch.setitem(registry.FORMATS, "onnx", f"{__name__}:WrongWay")
    shipped.clear()
    result = labels(run, only_probes(recipe), data)
    assert shipped == [False, True, False, True], "random weights are compared with, and never shipped"
    files = {(r["init"], r["file"]) for r in result.details["rows"]}
    assert files == {(i, f) for i in ("random", "ssl") for f in ("pytorch", "onnx-int8")}
    assert result.metrics["onnx_int8_ssl_probe_top1_1"] == pytest.approx(1 / 3)
    assert result.metrics["ssl_probe_top1_1"] > 0.5


@pytest.mark.slow
def test_the_int8_onnx_file_keeps_most_of_the_accuracy(toy):
    run, recipe, data = toy("run")
    metrics = labels(run, only_probes(recipe), data).metrics
    assert metrics["onnx_int8_ssl_probe_top1_1"] > metrics["ssl_probe_top1_1"] - 0.1
