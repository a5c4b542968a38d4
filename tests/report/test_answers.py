"""The answers and features that the report shows are those that their stage left, or they are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softedge.records import Outcome
from softedge.report import report
from softedge.report.collect import collect
from softedge.run import Run, perform

CLASSES = ["cat", "dog"]
LABELS = np.arange(20) % 2


def answered(path: Path, answers: np.ndarray) -> None:
    np.savez(path, indices=np.arange(20), test_labels=LABELS, test_predictions=answers)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Probe and baselines are done: one answer in twenty of the exported classifier is wrong, ten of the probe's."""

    def probe(folder: Path) -> Outcome:
        features = np.random.default_rng(0).normal(size=(20, 4))
        answers = np.where(np.arange(20) < 10, 1 - LABELS, LABELS)
        np.savez(folder / "features.npz", test_features=features, test_labels=LABELS, test_predictions=answers)
        return Outcome({"linear_top1": 0.5}, {"classes": CLASSES})

    def baselines(folder: Path) -> Outcome:
        answered(folder / "predictions.npz", np.r_[1, LABELS[1:]])
        details = {"classifier": "finetune", "classes": CLASSES, "rows": [], "rival": "SVM on HOG", "val_top1": {}}
        numbers = {"top1": 0.95, "cheap_top1": 0.5, "gain": 0.45, "gain_low": 0.2, "gain_high": 0.6, "n_train": 40}
        return Outcome(numbers | {"useful": True, "n_test": 20}, details)

    run = Run(tmp_path)
    for name, work in {"probe": probe, "baselines": baselines}.items():
        perform(run, name, work, recipe={}, inputs={})
    return run


def shown(run: Run) -> dict:
    report([run])
    return json.loads((run.root / "report.json").read_text())["runs"][0]


def test_the_matrix_counts_the_answers_of_the_exported_classifier(run: Run) -> None:
    values = shown(run)
    assert values["confusion"]["matrix"] == [[9, 1], [0, 10]]
    assert wrong(values["embedding"]) == (1, "finetune"), "the crosses of the map are the errors of the matrix"
    page = (run.root / "report.html").read_text()
    assert "20 test images, 1 of them answered wrongly" in page
    assert "cross: wrong answer of the fine-tuned network that is exported." in page


def test_the_map_has_the_answers_of_the_exported_classifier_where_the_comparison_drew_a_sample(run: Run) -> None:
    def baselines(folder: Path) -> Outcome:
        half = {"indices": np.arange(10), "test_labels": LABELS[:10], "test_predictions": LABELS[:10]}
        np.savez(folder / "predictions.npz", **half)
        return Outcome({"top1": 1.0}, {"classifier": "finetune", "classes": CLASSES})

    def finetune(folder: Path) -> Outcome:
        answers = {"test_rows": np.arange(20)[::-1], "test_labels": LABELS[::-1]}
        np.savez(folder / "features.npz", test_predictions=np.r_[1 - LABELS[19:], LABELS[18::-1]], **answers)
        return Outcome({"top1": 0.95}, {"classes": CLASSES})

    perform(run, "baselines", baselines, recipe={}, inputs={}, force=True)
    layout = collect(run)["embedding"]
    assert wrong(layout) == (10, "probe"), "ten images have no answer of the exported classifier"
    perform(run, "finetune", finetune, recipe={}, inputs={})
    layout = collect(run)["embedding"]
    assert wrong(layout) == (1, "finetune") and layout["answer"][19] != layout["truth"][19]


def wrong(layout: dict[str, Any]) -> tuple[int, str]:
    errors = sum(answer != truth for answer, truth in zip(layout["answer"], layout["truth"]))
    return errors, layout["answered_by"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "one bit": lambda path: path.write_bytes(bytes(b ^ (i == 200) for i, b in enumerate(path.read_bytes()))),
    "empty": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "of another run": lambda path: answered(path, 1 - LABELS),
    "classes that are not there": lambda path: answered(path, LABELS + 7),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_answers_that_are_not_those_of_their_stage_are_not_shown(run: Run, damage: str) -> None:
    """Nor are the probe's in their place: the caption names the exported classifier."""
    DAMAGE[damage](run.root / "baselines/predictions.npz")
    values = shown(run)
    assert "confusion" not in values and "gallery" not in values
    assert values["embedding"]["classes"] == CLASSES and wrong(values["embedding"]) == (10, "probe")
    assert "cross: wrong answer of the linear classifier" in (run.root / "report.html").read_text()


@pytest.mark.parametrize("damage", DAMAGE)
def test_features_that_are_not_those_of_the_probe_are_not_laid_out(run: Run, damage: str) -> None:
    DAMAGE[damage](run.root / "probe/features.npz")
    values = shown(run)
    assert "embedding" not in values
    assert values["confusion"]["matrix"] == [[9, 1], [0, 10]]


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "removed", "classes that are not there"])
def test_damage_is_no_end_of_a_report_of_a_run_that_recorded_no_hashes(run: Run, damage: str) -> None:
    for stage in ("probe", "baselines"):
        path = run.folder(stage) / "result.json"
        values = json.loads(path.read_text())
        del values["arrays"]  # as earlier versions wrote it
        path.write_text(json.dumps(values))
    assert shown(run)["confusion"]["matrix"] == [[9, 1], [0, 10]]
    DAMAGE[damage](run.root / "baselines/predictions.npz")
    assert "confusion" not in shown(run)
