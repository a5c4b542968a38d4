"""Images that are damaged, changed or gone after the data stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softedge import config
from softedge.data import late, load
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval import validation
from softedge.export import calibration
from softedge.records import Outcome
from softedge.run import Run
from softedge.stages.base import Stage
from softedge.stages.data import prepare


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of 2 classes of 20 noise PNGs that keeps no copies."""
    rng = np.random.default_rng(0)
    for label in "ab":
        for number in range(20):
            path = tmp_path / "images" / label / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    prepare(Run(tmp_path / "run"), config.build({"data": {"size": 32}}), str(tmp_path / "images"))
    for copy in (tmp_path / "run/data/images").iterdir():
        copy.unlink()
    return Run(tmp_path / "run")


def source(run: Run, name: str) -> Path:
    return run.root.parent / "images" / name


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def test_damaged_changed_and_missing_images_are_set_aside_with_their_reason(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load(run)
    damaged, missing, changed = whole.test.names[0], whole.train.names[3], whole.train.names[5]
    cut(source(run, damaged))
    source(run, missing).unlink()
    Image.new("RGB", (40, 40), "red").save(source(run, changed))
    data = load(run)
    assert set(data.aside) == {damaged, missing, changed}
    assert data.aside[changed] == "it has changed since the run looked at it"
    assert list(data.test.names) == list(whole.test.names)[1:]
    assert set(whole.train.names) - set(data.train.names) == {missing, changed}
    assert list(data.pretrain.names)[: len(data.train)] == list(data.train.names)
    np.testing.assert_array_equal(
        data.test.prepared(data.spec), whole.test.subset(range(1, len(whole.test))).prepared(data.spec)
    )
    said = capsys.readouterr().err
    assert "3 images can no longer be used and are set aside" in said and damaged in said
    assert late.record(data)["test"]["n"] == 1 and late.record(data)["test"]["of"] == len(whole.test)


def test_an_image_that_is_brought_back_is_used_again(run: Run) -> None:
    name = load(run).test.names[0]
    content = source(run, name).read_bytes()
    cut(source(run, name))
    data = load(run)
    assert name in data.aside
    source(run, name).write_bytes(content)
    again = late.without_lost(run.root, data)
    assert not again.aside and name in again.test.names and late.record(again) == {}


def test_unchanged_files_are_not_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stamped = json.loads((run.root / ".stamps.json").read_text()) if (run.root / ".stamps.json").exists() else {}
    from softedge.data import stamps

    for split in (load(run).pretrain, load(run).test):
        for row, name in enumerate(split.names):
            stamped[name] = [stamps._stamp(split.source_file(row)), split.hashes[row]]  # type: ignore[attr-defined]
    (run.root / ".stamps.json").write_text(json.dumps(stamped))
    monkeypatch.setattr("softedge.data.images.FileImages.read_source", lambda *_: pytest.fail("a file was read"))
    assert not load(run).aside


def test_no_image_changes_sides_because_another_is_set_aside(run: Run) -> None:
    def divided(data: Data) -> tuple[list[str], set[str], set[str]]:
        keep, (held, *_) = validation.divided(data.train, 0.6, 3)
        names = np.array(data.train.names)[keep]
        return list(calibration.choose(data, 10, 0).names), set(names[held]), set(names[~held])

    before = divided(load(run))
    lost = {before[0][0], *sorted(before[2])[:1]}
    for name in lost:
        cut(source(run, name))
    after = divided(load(run))
    assert after[0] == [name for name in before[0] if name not in lost]
    assert after[1] == before[1] - lost and after[2] == before[2] - lost


def test_a_class_without_a_test_image_and_half_a_split_are_refused(run: Run) -> None:
    whole = load(run)
    for name in [name for name in whole.test.names if name.startswith("b/")]:
        source(run, name).unlink()
    with pytest.raises(UserError, match=r"test images? of the class 'b' can no longer be used: b/.*--update"):
        late.require(load(run), "test")
    late.require(load(run), "train")
    for name in whole.train.names[:25]:
        source(run, name).unlink()
    with pytest.raises(UserError, match=r"25 of \d+ labelled training images .* too many"):
        late.require(load(run), "train")


def test_half_a_training_is_not_resumed_on_other_images(run: Run) -> None:
    recipe = config.build({"data": {"size": 32}})
    went_on = []

    def work(run: Run, recipe: config.Recipe, data: Data, folder: Path) -> Outcome:
        went_on.append((folder / "checkpoint.pt").exists())
        (folder / "checkpoint.pt").write_bytes(b"half")
        if len(went_on) < 3:
            raise KeyboardInterrupt
        return Outcome({"n": len(data.train)})

    stage = Stage("toy", lambda recipe: {}, lambda run, recipe: (), work, resumable=True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stage(run, recipe, load(run))
    assert went_on == [False, True]
    cut(source(run, load(run).train.names[0]))
    with pytest.raises(UserError, match=r"unfinished work on other images.*--force"):
        stage(run, recipe, load(run))
    done = stage(run, recipe, load(run), force=True)
    assert went_on[-1] is False and done.details["set_aside"]["train"]["n"] == 1
    assert done.metrics["n"] == done.details["set_aside"]["train"]["of"] - 1
