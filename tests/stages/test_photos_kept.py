"""The data stage keeps what a run cannot do without: photos that are gone, changed or damaged since."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save
from preparing import prepared, recipe

from softedge import config
from softedge.data import load
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.export import calibration
from softedge.run import Run, write_json
from softedge.stages.data import prepare


def trained(run: Run) -> None:
    """A finished pretraining, as far as the data stage looks."""
    done = run.result("data")
    assert done is not None
    write_json(run.folder("pretrain") / "result.json", {**done.to_dict(), "stage": "pretrain"})


def test_pictures_of_two_classes_that_change_places_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same names and sizes, and even the same times: nothing but the content differs."""
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    a, b = source / "a" / "0.bmp", source / "b" / "0.bmp"
    for path, seed in ((a, 50), (b, 51)):
        save(path, seed, height=40, width=40)
        os.utime(path, (1, 1))
    run = Run(tmp_path / "run")
    prepare(run, recipe(), str(source))
    for path, seed in ((a, 51), (b, 50)):
        path.unlink()  # the kept copies of test images are links
        save(path, seed, height=40, width=40)
        os.utime(path, (1, 1))
    with pytest.raises(UserError, match=r"2 changed \(a/0.bmp, b/0.bmp\)"):
        prepare(run, recipe(), str(source))
    trained(run)
    prepare(run, recipe(), str(source))
    assert "2 changed (a/0.bmp, b/0.bmp) since this run was made" in capsys.readouterr().err


def test_a_finished_run_goes_on_without_its_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    run = Run(tmp_path / "run")
    first = prepare(run, recipe(), str(source))
    (source / "a" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"1 gone \(a/0.jpg\)"):
        prepare(run, recipe(), str(source))
    trained(run)
    assert prepare(run, recipe(), str(source)) == first and "1 gone (a/0.jpg)" in capsys.readouterr().err
    shutil.rmtree(source)
    assert prepare(run, recipe(), str(source)) == first and "goes on with what it kept" in capsys.readouterr().err
    data = load(run)
    assert data.test.prepared(data.spec).shape == (2, 32, 32, 3)


def test_shards_that_are_gone_leave_their_test_images(tmp_path: Path) -> None:
    raw = class_folders(tmp_path / "raw", {"a": 4, "b": 4})
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(raw.rglob("*.jpg")):
            name = f"{path.parent.name}{path.stem}"
            archive.add(path, f"{name}.jpg")
            (tmp_path / "label").write_text(path.parent.name)
            archive.add(tmp_path / "label", f"{name}.cls")
    data = prepared(tmp_path, tmp_path / "shard.tar")
    expected = data.test.prepared(data.spec)
    (tmp_path / "shard.tar").unlink()
    again = load(Run(tmp_path / "run"))
    assert np.array_equal(again.test.prepared(again.spec), expected) and again.test.labels.tolist() == [0, 1]


def test_images_that_moved_away_are_set_aside_unless_the_run_keeps_them(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    few = config.build({"data": {"size": 32}, "export": {"calibration_images": 2}})
    done = prepare(Run(tmp_path / "run"), few, str(source))
    assert (done.details["kept"], done.details["kept_calibration"]) == (2, 2)
    before = load(Run(tmp_path / "run"))
    expected = before.test.prepared(before.spec)
    calibrating = calibration.choose(before, 2, few.seed)
    source.rename(tmp_path / "elsewhere")
    data = load(Run(tmp_path / "run"))
    assert np.array_equal(data.test.prepared(data.spec), expected)  # the run keeps its test images
    assert calibration.choose(data, 2, few.seed).sha256 == calibrating.sha256  # and those that calibrate int8
    gone = set(before.train.names) - set(data.train.names)
    assert len(gone) == 2 and set(data.aside) == gone and all("No such file" in why for why in data.aside.values())


def test_an_image_that_was_edited_since_is_not_measured_on(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    save(source / str(data.train.names[0]), 77)
    with pytest.raises(UserError, match="has changed since the run looked at it"):
        data.train.prepared(data.spec)


def test_a_test_image_that_was_edited_since_is_the_kept_one_or_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    expected = data.test.prepared(data.spec)
    replaced, edited = (source / str(name) for name in data.test.names[:2])
    replaced.unlink()
    save(replaced, 78)
    assert np.array_equal(load(Run(tmp_path / "run")).test.prepared(data.spec), expected)
    with open(edited, "r+b") as file:  # in place: the kept copy is a link to the same file
        file.truncate(100)
    with pytest.raises(UserError, match="has changed since"):
        data.test.prepared(data.spec)


def copies(run: Path, data: Data) -> list[Path]:
    """The kept files of the test images, each a file of its own."""
    found = [run / "data" / "images" / f"{sha256}.jpg" for sha256 in data.test.hashes]  # type: ignore[attr-defined]
    for path in found:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return found


def test_a_damaged_copy_in_the_run_costs_nothing_while_the_photo_is_there(tmp_path: Path) -> None:
    data = prepared(tmp_path, class_folders(tmp_path / "images", {"a": 3, "b": 3}))
    expected = data.test.prepared(data.spec)
    copies(tmp_path / "run", data)[0].write_bytes(b"\xff\xd8\xff bad sector")
    assert np.array_equal(load(Run(tmp_path / "run")).test.prepared(data.spec), expected)


def test_a_damaged_copy_in_the_run_is_named_and_not_the_photo_blamed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    data = prepared(tmp_path, source)
    copy = copies(tmp_path / "run", data)[0]
    copy.write_bytes(copy.read_bytes()[:-40])
    (source / str(data.test.names[0])).unlink()
    with pytest.raises(UserError) as caught:
        data.test.prepared(data.spec)
    line = str(caught.value)
    assert line.startswith(f"{copy}, the run's copy of {data.test.names[0]}, is damaged")
    assert "put either back" in line and "\n" not in line
