"""Weights that are not those that their stage left: whatever comes after says so, and uses none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softedge import config
from softedge.errors import UserError
from softedge.records import Outcome
from softedge.run import Run, perform, sha256_of
from softedge.stages import classifier
from softedge.stages.base import BACKBONE, hashes
from softedge.stages.report import report

DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:3]),
    "one byte": lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
    "empty": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


def made(root: Path, stage: str, file: str, **metrics: float) -> Run:
    """A run with one finished stage that left a file of weights."""

    def work(folder: Path) -> Outcome:
        (folder / file).write_bytes(stage.encode())
        return Outcome(dict(metrics))

    run = Run(root)
    perform(run, stage, work, recipe={}, inputs={})
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_later_stage_names_the_damaged_backbone_and_the_command_that_makes_it_again(
    tmp_path: Path, damage: str
) -> None:
    run = made(tmp_path, "pretrain", "backbone.safetensors")
    assert hashes(run, [BACKBONE])[BACKBONE] != "absent"
    DAMAGE[damage](run.root / BACKBONE)
    with pytest.raises(
        UserError, match=r"backbone.safetensors .* since the stage 'pretrain'.*pretrain --out .*--force"
    ):
        hashes(run, [BACKBONE])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_stage_whose_weights_were_damaged_is_not_already_done(tmp_path: Path, damage: str) -> None:
    run = made(tmp_path, "probe", "classifier.safetensors")
    path = run.root / "probe/classifier.safetensors"
    DAMAGE[damage](path)
    with pytest.raises(UserError, match="probe.*--force"):
        perform(run, "probe", lambda _: pytest.fail("done again without --force"), recipe={}, inputs={})

    def again(folder: Path) -> Outcome:
        (folder / path.name).write_bytes(b"new")
        return Outcome()

    perform(run, "probe", again, recipe={}, inputs={}, force=True)
    assert sha256_of(run, "probe/classifier.safetensors") != "absent"


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_classifier_is_chosen_beside_a_damaged_one(tmp_path: Path, damage: str) -> None:
    made(tmp_path, "finetune", "classifier.safetensors", val_top1=0.5)
    run = made(tmp_path, "probe", "classifier.safetensors", val_top1=0.9)
    assert classifier.source(run, config.build({})) == "probe"
    DAMAGE[damage](run.root / "finetune/classifier.safetensors")
    with pytest.raises(UserError, match="finetune/classifier.safetensors"):
        classifier.source(run, config.build({}))


def test_weights_whose_hash_no_stage_recorded_are_taken_as_they_are(tmp_path: Path) -> None:
    run = made(tmp_path, "pretrain", "backbone.safetensors")
    path = run.root / "pretrain/result.json"
    values = json.loads(path.read_text())
    del values["weights"]  # as earlier versions wrote it
    path.write_text(json.dumps(values))
    (run.root / BACKBONE).write_bytes(b"other")
    assert hashes(run, [BACKBONE])[BACKBONE] != "absent"


def test_a_report_of_a_damaged_run_is_written_and_ends_in_the_line_that_names_the_damage(tmp_path: Path) -> None:
    def work(folder: Path) -> Outcome:
        (folder / "classifier.safetensors").write_bytes(b"weights")
        np.savez(folder / "features.npz", test_labels=np.zeros(3))
        return Outcome()

    run = Run(tmp_path)
    perform(run, "probe", work, recipe={}, inputs={})
    (tmp_path / "recipe.toml").write_text(config.to_toml(config.build({})))
    assert report(run.root).is_file()
    assert "not to be relied on" not in (tmp_path / "MODEL_CARD.md").read_text()
    for name, content in {
        "bench/onnx-fp32@local/result.json": "{",
        "bench/onnx-fp32@local/samples.json": "",
        "probe/classifier.safetensors": "",
        "probe/features.npz": "PK",
        "plan.json": "[1",
        "data/index.json": "",
        "export/onnx-fp32/contract.json": "{}",
    }.items():
        path = tmp_path / name
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        (tmp_path / "report.html").unlink()
        with pytest.raises(UserError, match=f"report.html is written, and not to be relied on: .*{name}"):
            report(run.root)
        for written in ("report.html", "MODEL_CARD.md"):
            text = (tmp_path / written).read_text()
            assert re.search(f"This report is not to be relied on: .*{name}", text), written
            assert str(tmp_path) not in text
        path.unlink() if before is None else path.write_bytes(before)
    assert report(run.root).is_file()
