"""The data stage splits: by content, reproducibly, and nothing leaks from the test split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save
from PIL import Image
from preparing import contents, prepared, recipe

from softedge import config
from softedge.data import describe, describe_text, load
from softedge.data.examining import examine
from softedge.errors import UserError
from softedge.report import cautions
from softedge.report.collect import collect
from softedge.report.facts import data_facts
from softedge.run import Run
from softedge.stages.data import prepare


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


def test_copies_count_as_one_picture_and_only_one_is_tested_on(tmp_path: Path) -> None:
    """Whatever the seed: of 17 copies among 55 files the test split has one at most."""
    source = class_folders(tmp_path / "images", {"a": 19, "b": 20}, height=40, width=40)
    for number in range(1, 16):
        shutil.copy(source / "a" / "0.jpg", source / "a" / f"copy-{number}.jpg")
    Image.open(source / "a" / "0.jpg").save(source / "a" / "again.bmp")  # the same pixels in another file
    for seed in range(12):
        examined = examine(str(source), config.build({"seed": seed, "data": {"size": 32}}))
        tested = [item for item in examined.items if item.split == "test" and item.label == 0]
        assert len(tested) == 4 and len({item.content for item in tested}) == 4  # a fifth of 19 pictures
        used = {item.content for item in examined.items if item.split == "train"}
        assert not used & {item.content for item in tested}


def test_a_picture_with_two_labels_is_set_aside_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = class_folders(tmp_path / "images", {"a": 6, "b": 6}, height=40, width=40)
    shutil.copy(source / "a" / "2.jpg", source / "b" / "same.jpg")
    run = Run(tmp_path / "run")
    result = prepare(run, recipe(), str(source))
    assert result.details["contradictions"] == [["a/2.jpg", "b/same.jpg"]]
    assert result.metrics["n_contradictions"] == 2
    assert result.metrics["n_train"] + result.metrics["n_test"] == 11
    assert "a/2.jpg and b/same.jpg" in capsys.readouterr().err
    data = load(run)
    assert not {"a/2.jpg", "b/same.jpg"} & {*data.pretrain.names, *data.test.names}
    assert "1 picture with two labels: a/2.jpg and b/same.jpg" in describe_text(describe(str(source), recipe()))


def test_the_report_counts_the_images_of_a_folder_as_its_description_does(tmp_path: Path) -> None:
    """Used, unreadable, copies of test images, and pictures with two labels."""
    source = class_folders(tmp_path / "images", {"train/a": 6, "train/b": 6, "test/a": 3, "test/b": 3}, height=40)
    shutil.copy(source / "train" / "a" / "2.jpg", source / "train" / "b" / "same.jpg")
    shutil.copy(source / "test" / "b" / "1.jpg", source / "train" / "b" / "tested.jpg")
    (source / "train" / "a" / "empty.jpg").touch()
    run = Run(tmp_path / "run")
    prepare(run, recipe(), str(source))
    assert describe(str(source), recipe())["n_found"] == 21
    values = collect(run, layout=False)
    assert cautions._bad_images(values) == ["1 of 21 images could not be read and were left out."]
    facts = dict(data_facts(values))
    shown = ("pretraining images", "test images", "unreadable, excluded", "copies of test images, excluded")
    counted = [facts[key].striptags() for key in (*shown, "images with contradictory labels, excluded")]
    assert counted == ["11", "6", "1", "1", "2"]


def test_a_contradiction_is_named_by_two_files_with_different_labels(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 5, "b": 5})
    for number in range(3):
        shutil.copy(source / "a" / "0.jpg", source / "a" / f"0-{number}.jpg")
    shutil.copy(source / "a" / "0.jpg", source / "b" / "copy.jpg")
    (names,) = examine(str(source), config.build({"data": {"size": 32}})).contradictions
    assert {name[0] for name in names[:2]} == {"a", "b"} and len(names) == 5


def test_a_class_folder_that_is_a_link_to_another_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 3, "b": 3})
    (source / "c").symlink_to(source / "a", target_is_directory=True)
    with pytest.raises(UserError, match=r"of class 'a' is in another class, too \(a/0.jpg and c/0.jpg, 3"):
        prepared(tmp_path, source)


def test_files_of_one_name_stay_in_one_split(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images", {"a": 8, "b": 8}, height=40, width=40)
    for path in sorted(source.rglob("*.jpg")):
        Image.open(path).rotate(2).save(path.with_suffix(".webp"))  # nearly the same picture
    data = prepared(tmp_path, source)
    stems = {name.rpartition(".")[0] for name in data.test.names}
    assert len(data.test) == len(stems) == 4  # a fifth of eight, rounded: two of each class
    assert not stems & {name.rpartition(".")[0] for name in data.pretrain.names}


def test_training_images_that_are_all_copies_of_test_images_are_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "images" / "test", {"a": 2, "b": 2}).parent
    shutil.copytree(source / "test", source / "train")
    with pytest.raises(UserError, match="every training image of .* is a copy of a test image"):
        prepared(tmp_path, source)


@pytest.mark.parametrize("per_class", [{"a": 3, "b": 1}])
def test_a_class_too_small_to_split_is_refused(tmp_path: Path, per_class: dict[str, int]) -> None:
    with pytest.raises(UserError, match="class 'b' has 1 readable image, too few"):
        prepared(tmp_path, class_folders(tmp_path / "images", per_class))
    (tmp_path / "images" / "b" / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"too few.*; set aside are 1, first b/cut\.png: "):
        prepared(tmp_path, tmp_path / "images")


def test_all_classes_too_small_to_split_are_named_with_the_images_that_could_be_labelled(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", {"a": 3, "b": 1, "c": 1})
    shutil.copy(images / "a" / "0.jpg", images / "loose.jpg")
    with pytest.raises(
        UserError, match=r"2 classes have fewer than two readable images \('b' 1, 'c' 1\), too few"
    ) as said:
        prepared(tmp_path, images)
    assert f"label more of the 1 unlabelled image (softedge label-next {images}), add images" in str(said.value)


def test_a_class_whose_training_images_are_all_copies_of_test_images_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 4, "dog": 4})
    class_folders(tmp_path / "test", {"cat": 4, "dog": 2})
    for path in (tmp_path / "train" / "cat").iterdir():
        shutil.copy(path, tmp_path / "test" / "cat" / f"copy of {path.name}")
    with pytest.raises(UserError, match="every training image of class 'cat' .* is a copy of a test image"):
        examine(str(tmp_path), config.build({"data": {"size": 32}}))
