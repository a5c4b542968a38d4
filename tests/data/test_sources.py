"""Folders of every shape are understood, and what cannot be is refused in one clear line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save

from softedge.data import folders, published, sources
from softedge.data.images import ArrayImages
from softedge.data.inventory import Inventory
from softedge.errors import UserError


def names(found: Inventory, split: str) -> list[str]:
    return list(found.splits[split].names) if split in found.splits else []


def test_digits_are_the_scans_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    inventory = sources.find("digits")
    images = inventory.splits["train"]
    assert isinstance(images, ArrayImages) and images.array.shape == (1797, 8, 8, 3) and images.array.dtype == np.uint8
    assert inventory.classes == tuple("0123456789")
    assert np.array_equal(images.labels, load_digits().target)
    assert np.abs(images.array[..., 1] / 255 * 16 - load_digits().images).max() < 0.05
    larger = published.enlarge(images.subset([0]), 32)
    assert isinstance(larger, ArrayImages) and larger.array.shape == (1, 32, 32, 3)


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == () and list(inventory.splits) == ["unlabelled"]
    assert inventory.splits["unlabelled"].labels.tolist() == [-1, -1, -1]


def test_class_folders_are_labelled_in_sorted_order(tmp_path: Path) -> None:
    class_folders(tmp_path, {"wolf": 2, "ant": 1, "Bär mit Hut": 1})
    save(tmp_path / "ant" / "deep" / "er" / "x y ü.JPEG", 77)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("Bär mit Hut", "ant", "wolf")
    assert names(inventory, "train") == [
        "Bär mit Hut/0.jpg",
        "ant/0.jpg",
        "ant/deep/er/x y ü.JPEG",
        "wolf/0.jpg",
        "wolf/1.jpg",
    ]
    assert inventory.splits["train"].labels.tolist() == [0, 1, 1, 2, 2]
    assert inventory.splits["train"].decode(2).shape == (48, 64, 3)


def test_hidden_files_and_other_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 1, "b": 1})
    save(tmp_path / "a" / "._0.jpg", 5)
    save(tmp_path / ".thumbnails" / "0.jpg", 6)
    save(tmp_path / "__MACOSX" / "a" / "0.jpg", 6)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    inventory = sources.find(str(tmp_path))
    assert len(inventory) == 2
    assert inventory.ignored == {"hidden": 3, "not images": 1}


def test_split_folders_are_found_whatever_their_case(tmp_path: Path) -> None:
    class_folders(tmp_path / "Train", {"a": 2, "b": 2})
    class_folders(tmp_path / "test", {"a": 1, "b": 1}, start=10)
    save(tmp_path / "unlabelled" / "somewhere" / "1.jpg", 20)
    save(tmp_path / "Unlabeled" / "2.jpg", 21)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b")
    assert [len(inventory.splits[s]) for s in ("train", "test", "unlabelled")] == [4, 2, 2]


def test_val_is_the_test_split_only_when_there_is_no_test(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 2, "b": 2})
    class_folders(tmp_path / "val", {"a": 1, "b": 1}, start=10)
    assert names(sources.find(str(tmp_path)), "test") == ["val/a/0.jpg", "val/b/0.jpg"]
    class_folders(tmp_path / "test", {"a": 1, "b": 1}, start=20)
    inventory = sources.find(str(tmp_path))
    assert names(inventory, "test") == ["test/a/0.jpg", "test/b/0.jpg"]
    assert "2 images of the validation split left out" in inventory.notices[0]


@pytest.mark.parametrize(
    "pair", [("Cat", "cat"), ("hot dog", "hot_dog"), ("0", "00"), ("Class_01", "class 1"), ("T-Shirt", "t shirt")]
)
def test_classes_that_differ_in_spelling_alone_are_told(pair: tuple[str, str], tmp_path: Path) -> None:
    class_folders(tmp_path, {pair[0]: 2, pair[1]: 2, "tree": 2})
    inventory = sources.find(str(tmp_path))
    assert len(inventory.classes) == 3
    assert (
        f"differ in spelling alone, and are learned as different ones: {pair[0]!r} and {pair[1]!r}"
        in inventory.notices[0]
    )


def test_names_of_other_numbers_are_no_spellings_of_one(tmp_path: Path) -> None:
    class_folders(tmp_path, dict.fromkeys(("-1", "1", "1-2", "12", "1_2", "hotdog", "hot dog"), 1))
    assert not sources.find(str(tmp_path)).notices


def test_a_flat_train_folder_is_unlabelled(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0.jpg", 0)
    save(tmp_path / "train" / "1.jpg", 1)
    assert len(names(sources.find(str(tmp_path)), "unlabelled")) == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    class_folders(tmp_path, {"bus": 1, "car": 1, "train": 1})
    assert sources.find(str(tmp_path)).classes == ("bus", "car", "train")


def test_loose_images_beside_class_folders_are_unlabelled_with_a_notice(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 1, "b": 1})
    save(tmp_path / "loose.jpg", 5)
    inventory = sources.find(str(tmp_path))
    assert names(inventory, "unlabelled") == ["loose.jpg"] and "unlabelled" in inventory.notices[0]


def test_links_in_a_circle_are_safe_and_links_to_images_are_followed(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", {"a": 1, "b": 1})
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    save(tmp_path / "elsewhere" / "0.jpg", 9)
    (tmp_path / "data" / "b" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    inventory = sources.find(str(tmp_path / "data"))
    assert names(inventory, "train") == ["a/0.jpg", "b/0.jpg", "b/linked/0.jpg"]
    assert inventory.ignored["links back to a folder above"] == 1


def test_a_broken_link_to_an_image_is_kept_for_screening_to_report(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert folders.scan(tmp_path).names == ("gone.jpg",)


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_file_name_that_is_not_unicode_is_an_image_like_any_other(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff.png"
    save(tmp_path / "x.png", 0)
    os.rename(os.fsencode(tmp_path / "x.png"), raw)
    assert sources.find(str(tmp_path)).splits["unlabelled"].decode(0).shape == (48, 64, 3)


def refused(tmp_path: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        sources.find(str(tmp_path))
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value), caught.value


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing here")
    refused(tmp_path, "no images", "1 not images")


def test_one_class_only_is_refused_and_the_flat_reading_offered(tmp_path: Path) -> None:
    class_folders(tmp_path, {"cat": 2})
    refused(tmp_path, "only one class ('cat')", str(tmp_path / "cat"))


def test_a_folder_in_a_folder_is_suggested(tmp_path: Path) -> None:
    class_folders(tmp_path / "trash", {"a": 1, "b": 1})
    refused(tmp_path, "did you mean", str(tmp_path / "trash"))


def test_a_class_in_test_that_is_not_in_train_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 1, "b": 1})
    class_folders(tmp_path / "test", {"a": 1, "zebra": 1}, start=5)
    refused(tmp_path, "'zebra'", "train/ does not have")


def test_a_test_split_without_class_folders_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 1, "b": 1})
    save(tmp_path / "test" / "0.jpg", 5)
    refused(tmp_path, "test split", "no class folders")


def test_a_test_split_alone_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "test", {"a": 1, "b": 1})
    refused(tmp_path, "neither train/ nor unlabeled/")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    refused(save(tmp_path / "x.jpg", 0), "is a file")


def test_a_misspelt_name_or_folder_gets_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photo", "did you mean", "photos")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        sources.find("cifar-10")


def test_a_data_set_that_cannot_be_fetched_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("SOFTEDGE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(UserError, match=r"no route to host.*cifar-10-python.tar.gz.*SOFTEDGE_DATA"):
        sources.find("cifar10")


def test_an_unpacked_copy_of_a_data_set_is_used_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "imagenet" / "train", {"n01": 1, "n02": 1})
    class_folders(tmp_path / "imagenet" / "val", {"n01": 1, "n02": 1}, start=5)
    monkeypatch.setenv("SOFTEDGE_DATA", str(tmp_path))
    inventory = sources.find("imagenet")
    assert inventory.source == "imagenet" and len(inventory.splits["test"]) == 2


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_folder_one_is_in(tmp_path, monkeypatch, name):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="empty name"):
        sources.find(name)
    assert len(sources.find(".")) == 4
