"""The data stage: nothing bad stops it, nothing leaks from the test split, and what it decided can be read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image

from softedge import config
from softedge.data import describe, describe_text, load
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.run import Run, read_json
from softedge.stages.data import prepare


def recipe(**data: object) -> config.Recipe:
    return config.build({"data": {"size": 32, **data}})


def prepared(tmp_path: Path, source: Path | str, **data: object) -> Data:
    run = Run(tmp_path / "run")
    prepare(run, recipe(**data), str(source), force=True)
    return load(run)


def contents(images: object) -> set[bytes]:
    return {images.path(i).read_bytes() for i in range(len(images))}  # type: ignore[attr-defined]


def test_the_hold_out_is_stratified_and_disjoint(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 20, "b": 10, "c": 2})
    data = prepared(tmp_path, source)
    assert np.bincount(data.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(data.train.labels).tolist() == [16, 8, 1]
    assert not contents(data.train) & contents(data.test)
    assert list(data.pretrain.names) == list(data.train.names)


def test_the_hold_out_survives_renaming_and_depends_on_the_seed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 12, "b": 12})
    before = contents(prepared(tmp_path, source).test)
    for number, path in enumerate(sorted((source / "a").iterdir(), reverse=True)):
        path.rename(source / "a" / f"renamed-{number:03d}.jpg")
    assert contents(prepared(tmp_path, source).test) == before
    other = config.build({"seed": 1, "data": {"size": 32}})
    prepare(Run(tmp_path / "other"), other, str(source))
    assert contents(load(Run(tmp_path / "other")).test) != before


def test_an_added_image_moves_at_most_one_other_across_the_line(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 12, "b": 12})
    before = contents(prepared(tmp_path, source).test)
    save(source / "a" / "new.jpg", 999)
    assert len(before - contents(prepared(tmp_path, source).test)) <= 1


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


def test_a_copy_of_a_test_image_never_stays_in_training(tmp_path: Path) -> None:
    source = tmp_path / "images"
    class_folders(source / "train", {"a": 3, "b": 3})
    class_folders(source / "test", {"a": 2, "b": 2}, start=50)
    (source / "unlabeled").mkdir()
    shutil.copy(source / "test" / "a" / "0.jpg", source / "train" / "a" / "copy.jpg")
    shutil.copy(source / "test" / "b" / "1.jpg", source / "unlabeled" / "copy.jpg")
    save(source / "unlabeled" / "own.jpg", 90)
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    data = load(run)
    assert result.metrics["n_duplicates"] == 2
    assert (len(data.train), len(data.test), len(data.pretrain)) == (6, 4, 7)
    assert not contents(data.pretrain) & contents(data.test)


def test_copies_within_a_class_do_not_straddle_the_hold_out(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 6, "b": 6})
    for number in range(6):
        shutil.copy(source / "a" / f"{number}.jpg", source / "a" / f"copy-{number}.jpg")
    data = prepared(tmp_path, source)
    assert not contents(data.pretrain) & contents(data.test)


def test_unlabelled_images_alone_all_go_to_pretraining(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "images" / f"{number}.jpg", number)
    data = prepared(tmp_path, tmp_path / "images")
    assert (len(data.pretrain), len(data.train), len(data.test), data.classes) == (5, 0, 0, ())


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


def test_the_stage_is_skipped_when_done_and_refuses_other_images(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    run = Run(tmp_path / "run")
    first = prepare(run, recipe(), str(source))
    assert prepare(run, recipe(), str(source)) == first
    save(source / "a" / "new.jpg", 99)
    with pytest.raises(UserError, match="--force"):
        prepare(run, recipe(), str(source))
    with pytest.raises(UserError, match=r"test_fraction.*--force"):
        prepare(run, recipe(test_fraction=0.5), str(source))


@pytest.mark.parametrize("per_class", [{"a": 3, "b": 1}])
def test_a_class_too_small_to_split_is_refused(tmp_path: Path, per_class: dict[str, int]) -> None:
    with pytest.raises(UserError, match="class 'b' has 1 readable images, too few"):
        prepared(tmp_path, class_folders(tmp_path / "images", per_class))


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


def test_images_that_moved_away_are_missed_clearly(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 2, "b": 2})
    prepared(tmp_path, source)
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="which is not there"):
        load(Run(tmp_path / "run"))


def test_above_the_limit_only_headers_are_checked_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    whole = (source / "b" / "0.jpg").read_bytes()
    (source / "b" / "cut.jpg").write_bytes(whole[:-100])
    monkeypatch.setattr("softedge.data.examining.DECODE_AT_MOST", 1)
    values = describe(str(source), recipe())
    assert not values["verified"] and values["n_bad"] == 1
    assert "only headers were checked" in describe_text(values)


def test_describing_names_classes_bad_files_and_splits(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"cat": 5, "dog": 5})
    (source / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.fromarray(photo(1)).save(source / "cat" / "grey.png")
    text = describe_text(describe(str(source), recipe()))
    assert "cat" in text and "dog" in text and "dog/broken.jpg" in text and "held out" in text


def test_the_index_is_one_line_an_image(tmp_path: Path) -> None:
    prepared(tmp_path, class_folders(tmp_path / "images", {"a": 2, "b": 2}))
    lines = (tmp_path / "run" / "data" / "index.json").read_text().splitlines()
    items = [json.loads(line.strip().rstrip(",")) for line in lines if line.strip().startswith('{"name"')]
    assert len(items) == 4 and set(items[0]) == {"name", "sha256", "split", "label"}
