"""A refusal advises folders that are there, whatever was taken away from the layout to read it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from pictures import class_folders, save

from softedge.data import sources
from softedge.errors import UserError


def small(root: Path, per_class: dict[str, int], start: int = 0) -> Path:
    return class_folders(root, per_class, start, height=40, width=40)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        sources.find(str(path))
    return str(caught.value).replace(str(path), "ROOT")


@pytest.mark.parametrize(
    ("made", "advice"),
    [
        ("a/train a/test b/train b/test", "a whose splits hold folders (cat, dog) and no images: .* --data ROOT/a;"),
        ("train/train/x train/train/y test/test/x test/test/y", "move them up, into test/test and train/train;"),
        ("z/train/x z/train/y z/test/x z/test/y", "the folder z/test/x that .* into z/test and z/train;"),
        ("train/x train/y", "the folder train/x that holds .* --data ROOT/train/x;"),
        ("plants/plants", "holds only one folder; did you mean ROOT/plants/plants?"),
        ("plants/plants/x plants/plants/y", "holds only one folder; did you mean ROOT/plants/plants?"),
    ],
)
def test_only_folders_that_are_there_are_advised(tmp_path: Path, made: str, advice: str) -> None:
    for number, name in enumerate(made.split()):
        small(tmp_path / name, {"cat": 2, "dog": 2}, 10 * number)
    message = refusal(tmp_path)
    start, _, end = advice.partition(".* ")
    assert start in message and end in message


def test_names_that_only_read_as_folders_are_not_advised_as_some(tmp_path: Path) -> None:
    for number, name in enumerate(("animals\\cat\\0.jpg", "animals\\dog\\0.jpg", "plants\\oak\\0.jpg")):
        save(tmp_path / name, number)
    message = refusal(tmp_path)
    assert "the folder animals that holds folders (cat, dog)" in message and "put them in its place" in message


def test_the_folder_of_the_only_class_is_named_as_it_is_on_the_disk(tmp_path: Path) -> None:
    small(tmp_path / "a" / "z" / "training", {"cat": 2})
    assert "ROOT/z/training has only one class ('cat')" in refusal(tmp_path / "a")
    save(tmp_path / "b" / unicodedata.normalize("NFD", "Bär") / "0.jpg", 1)
    advised = refusal(tmp_path / "b").split("(for unlabelled images give ROOT/")[1].rstrip(")")
    assert (tmp_path / "b" / advised).is_dir()


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        ("cat dog test", "test among images to train on (test/0.jpg)"),  # unlabelled pictures beside class folders
        ("cat dog cat/val dog/val", "val among images to train on (cat/val/0.jpg)"),
        ("train/cat train/dog train/dog/Test", "Test among images to train on (train/dog/Test/0.jpg)"),
        ("labels/cat train test", "test among images to train on (test/0.jpg)"),
    ],
)
def test_a_folder_of_test_images_among_training_images_is_refused(tmp_path: Path, folders: str, named: str) -> None:
    for number, name in enumerate(folders.split()):
        small(tmp_path / name, {"": 2}, 10 * number)
    assert named in refusal(tmp_path)


def test_folders_of_splits_among_unlabelled_images_are_unlabelled(tmp_path: Path) -> None:
    for number, name in enumerate(("train/cat", "train/dog", "unlabeled/test", "test/cat", "test/dog/train")):
        small(tmp_path / name, {"": 2}, 10 * number)
    assert len(sources.find(str(tmp_path)).splits["unlabelled"]) == 2


def test_classes_that_the_test_split_spells_in_another_way_are_named_with_both(tmp_path: Path) -> None:
    for number, name in enumerate(("train/cat", "train/hot dog", "test/Cat", "test/hot_dog")):
        small(tmp_path / name, {"": 2}, 10 * number)
    assert "('Cat', which train/ spells 'cat', 'hot_dog', which train/ spells 'hot dog')" in refusal(tmp_path)
