"""The data stage: nothing bad stops it, and what it decided can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image
from preparing import prepared, recipe

from softedge.data import describe, describe_text
from softedge.errors import UserError
from softedge.run import Run, read_json
from softedge.stages.data import changed, inspect, prepare


def test_bad_images_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 4, "b": 4})
    (source / "a" / "text.jpg").write_text("this is no image")
    (source / "a" / "empty.png").touch()
    (source / "b" / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    whole = (source / "b" / "0.jpg").read_bytes()
    (source / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    assert result.metrics["n_bad"] == 4 and result.metrics["n_train"] + result.metrics["n_test"] == 8
    reasons = {bad["name"]: bad["reason"] for bad in read_json(run.root / "data" / "index.json")["bad"]}
    assert "known format" in reasons["a/text.jpg"] and "empty" in reasons["a/empty.png"]
    assert "truncated" in reasons["b/cut.jpg"] and "No such file" in reasons["b/link.jpg"]


def test_digits_come_back_as_they_were_prepared(tmp_path: Path) -> None:
    data = prepared(tmp_path, "digits", mean="auto", std="auto")
    assert (len(data.train), len(data.test), len(data.classes)) == (1438, 359, 10)
    assert data.spec.resize == 32 and data.train.decode(0).shape == (32, 32, 3)
    measured = data.pretrain.prepared(data.spec) / 255.0
    assert np.abs(measured.mean((0, 1, 2)) - data.spec.mean).max() < 0.01
    assert np.abs(measured.std((0, 1, 2)) - data.spec.std).max() < 0.01


def test_resize_zero_leaves_a_margin_only_for_larger_images(tmp_path: Path) -> None:
    small = class_folders(tmp_path / "small", {"a": 2, "b": 2}, height=32, width=36)
    large = class_folders(tmp_path / "large", {"a": 2, "b": 2}, height=100, width=50)
    assert prepared(tmp_path, small).spec.resize == 32
    assert prepared(tmp_path, large).spec.resize == 37
    assert prepared(tmp_path, large, resize=40).spec.resize == 40
    with pytest.raises(UserError, match=r"data.resize = 20 is smaller"):
        prepared(tmp_path, large, resize=20)


def test_the_stage_is_skipped_when_done_and_goes_on_with_the_images_it_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    run = Run(tmp_path / "run")
    first = prepare(run, recipe(), str(source))
    assert prepare(run, recipe(), str(source)) == first and "already done" in capsys.readouterr().err
    here = recipe(source=str(source))
    assert not changed(run, here) and not changed(Run(tmp_path / "none"), here)
    save(source / "a" / "new.jpg", 99)
    assert changed(run, here), "what deploy --update asks"
    assert prepare(run, recipe(), str(source)) == first
    again = f"1 new since this run was made; softedge deploy --update --out {run.root} trains on them"
    assert again in capsys.readouterr().err
    with pytest.raises(UserError, match=r"test_fraction.*--force"):
        prepare(run, recipe(test_fraction=0.5), str(source))
    assert prepare(run, recipe(), str(source), force=True).metrics["n_pretrain"] == first.metrics["n_pretrain"] + 1


def test_an_image_that_is_marked_as_wrong_since_is_left_out_and_not_called_gone(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 4, "b": 4})
    run = Run(tmp_path / "run")
    prepare(run, recipe(), str(source))
    names = sorted(path.relative_to(source).as_posix() for path in source.glob("*/*"))
    (source / "labels.csv").write_text(f"name,label,state,time\n{names[0]},,wrong,2026-11-30T10:00:00+00:00\n")
    (source / names[1]).unlink()
    with pytest.raises(UserError) as refused:
        prepare(run, recipe(), str(source))
    assert f"1 gone ({names[1]}), 1 left out now ({names[0]}); softedge deploy --update" in str(refused.value)
    assert changed(run, recipe(source=str(source)))


def test_a_folder_of_bad_images_only_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"none of the 1 images.*x.jpg: not an image"):
        prepared(tmp_path, tmp_path / "images")


def test_a_class_whose_training_images_are_all_bad_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "images" / "train", {"a": 2, "b": 2})
    class_folders(tmp_path / "images" / "test", {"a": 2, "b": 2}, start=10)
    for path in (tmp_path / "images" / "train" / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class 'b'.*no readable training image"):
        prepared(tmp_path, tmp_path / "images")


def test_a_file_that_is_whole_in_its_header_only_is_found_in_a_set_of_any_size(tmp_path: Path) -> None:
    """Sets beyond 20,000 files were once checked by their headers, and such images tested on as grey."""
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3}, height=40, width=40)
    Image.fromarray(photo(9, 40, 40)).save(source / "b" / "cut.png")
    whole = (source / "b" / "cut.png").read_bytes()
    (source / "b" / "cut.png").write_bytes(whole[: len(whole) // 3])
    values = describe(str(source), recipe())
    assert values["n_bad"] == 1 and values["bad"][0]["name"] == "b/cut.png"


def test_describing_names_classes_bad_files_and_splits(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"cat": 5, "dog": 5})
    (source / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.fromarray(photo(1)).save(source / "cat" / "grey.png")
    text = describe_text(describe(str(source), recipe()))
    assert "centre crop of" in text and "softedge plan" not in text
    planned = describe_text(inspect(str(source)))
    assert f"chosen by the plan: softedge plan --data {source}" in planned and "centre crop of" not in planned
    assert "centre crop of 32" in describe_text(inspect(str(source), set=["data.size=32", "data.resize=32"]))
    assert "cat" in text and "dog" in text and "dog/broken.jpg" in text and "held out" in text


def test_the_index_is_one_line_an_image(tmp_path: Path) -> None:
    prepared(tmp_path, class_folders(tmp_path / "images", {"a": 2, "b": 2}))
    lines = (tmp_path / "run" / "data" / "index.json").read_text().splitlines()
    items = [json.loads(line.strip().rstrip(",")) for line in lines if line.strip().startswith('{"name"')]
    assert len(items) == 4 and set(items[0]) == {"name", "sha256", "split", "label"}
