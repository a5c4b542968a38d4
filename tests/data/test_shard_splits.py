"""Folders of splits in tar files are what they are in folders; test images are never trained on for lying in a tar."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from pictures import class_folders
from test_shard_labels import png, tar

from softedge.data import sources
from softedge.data.inventory import Inventory
from softedge.errors import UserError


def placed(found: Inventory, shard: str = "") -> dict[str, tuple[str, str]]:
    """Name -> split and class."""
    return {
        name.removeprefix(shard): (split, found.classes[label] if label >= 0 else "")
        for split, images in found.splits.items()
        for name, label in zip(images.names, images.labels.tolist())
    }


def packed(tree: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for file in sorted(tree.rglob("*.*")):
            archive.add(file, file.relative_to(tree).as_posix(), recursive=False)
    return path


def made(tree: Path, folders: str) -> Path:
    for number, folder in enumerate(folders.split()):
        class_folders(tree / folder, {"": 2}, 10 * number, height=40, width=40)
    return tree


@pytest.mark.parametrize(
    "folders",
    [
        "train/cat train/dog test/cat test/dog",
        "train/cat train/dog val/cat val/dog test/cat test/dog",
        "archive/train/cat archive/train/dog archive/valid/cat",
        "seg_train/seg_train/cat seg_train/seg_train/dog seg_test/seg_test/cat seg_pred/seg_pred",
        "cat/train cat/test dog/train dog/test",
        "train2017/cat train2017/dog val2017/cat",
        "Train/cat Train/dog unlabeled",
        "train/cat train/dog test/dog extra/dog train/.ipynb_checkpoints",
    ],
)
def test_a_tar_of_folders_of_splits_is_read_as_those_folders(folders: str, tmp_path: Path) -> None:
    tree = made(tmp_path / "tree", folders)
    inventory = sources.find(str(packed(tree, tmp_path / "a.tar")))
    assert placed(inventory, "a.tar/") == placed(sources.find(str(tree)))
    assert "are those of the folders in the tar files" in inventory.notices[-1]


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        ("test/cat test/dog val/cat val/dog", "neither train/ nor unlabeled/"),
        ("train/cat train/dog test/fox", "classes that train/ does not have"),
        ("train/cat/x train/cat/y train/dog", "that holds folders (x, y)"),
        ("a/train/cat a/train/dog a/test/cat b/train/cat b/test/dog", "(cat, dog) and no images"),
    ],
)
def test_a_tar_of_folders_that_are_refused_is_refused(folders: str, reason: str, tmp_path: Path) -> None:
    tree = made(tmp_path / "tree", folders)
    for path in (tree, packed(tree, tmp_path / "a.tar")):
        with pytest.raises(UserError) as caught:
            sources.find(str(path))
        assert reason in str(caught.value), caught.value


def sample(name: str, seed: int, label: str) -> list[tuple[str, bytes]]:
    return [(f"{name}.png", png(seed)), (f"{name}.cls", label.encode())]


def test_labels_beside_the_images_keep_the_splits_of_their_folders(tmp_path: Path) -> None:
    members = [m for n in range(8) for m in sample(f"{'test' if n > 5 else 'train'}/x/{n}", n, "ab"[n % 2])]
    members += sample("unlabeled/9", 9, "a")
    inventory = sources.find(str(tar(tmp_path / "a.tar", members)))
    expected = {f"train/x/{n}.png": ("train", "ab"[n % 2]) for n in range(6)}
    expected |= {f"test/x/{n}.png": ("test", "ab"[n % 2]) for n in (6, 7)}
    assert placed(inventory, "a.tar/") == expected | {"unlabeled/9.png": ("unlabelled", "")}
    assert "1 label of images in unlabeled/: not used" in inventory.notices


def test_unlabelled_images_of_a_test_folder_are_not_trained_on(tmp_path: Path) -> None:
    inventory = sources.find(str(tar(tmp_path / "a.tar", [("train/0.png", png(0)), ("test/1.png", png(1))])))
    assert placed(inventory, "a.tar/") == {"train/0.png": ("unlabelled", "")}
    assert "1 image of the test and validation shards: left out" in " ".join(inventory.notices)


@pytest.mark.parametrize("name", ["x/test/1", "train/val/1", "x/y/valid/1"])
def test_a_folder_of_another_split_further_down_is_refused(name: str, tmp_path: Path) -> None:
    first = name.split("/")[0]
    members = [m for n in range(4) for m in sample(f"{first}/a/{n}", n, "ab"[n % 2])]
    path = tar(tmp_path / "a.tar", [*members, *sample(name, 9, "a")])
    with pytest.raises(UserError, match=rf"has the folder \w+ among .* \(a\.tar/{name}\.png\); extract"):
        sources.find(str(path))


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    members = [m for n, label in enumerate(["bus", "test", "car"] * 2) for m in sample(f"{label}/{n}", n, label)]
    assert sources.find(str(tar(tmp_path / "a.tar", members))).classes == ("bus", "car", "test")


def test_a_packed_folder_for_each_split_is_read_as_that_folder(tmp_path: Path) -> None:
    tree = made(tmp_path / "tree", "train/cat train/dog test/cat test/dog")
    (tmp_path / "tars").mkdir()
    for split in ("train", "test"):
        with tarfile.open(tmp_path / "tars" / f"{split}.tar", "w") as archive:
            archive.add(tree / split, split)
    inventory = sources.find(str(tmp_path / "tars"))
    expected = {
        f"tars/{name.split('/')[0]}.tar/{name}": place for name, place in placed(sources.find(str(tree))).items()
    }
    assert placed(inventory) == expected


def test_a_tar_called_after_one_split_that_holds_another_is_refused(tmp_path: Path) -> None:
    tar(tmp_path / "train.tar", [m for n in range(4) for m in sample(f"test/{n}", n, "ab"[n % 2])])
    tar(tmp_path / "val.tar", [m for n in range(4, 8) for m in sample(f"val/{n}", n, "ab"[n % 2])])
    with pytest.raises(UserError, match=r"the folder test among images to train on \(.*train\.tar/test/0\.png\)"):
        sources.find(str(tmp_path))


@pytest.mark.parametrize(
    ("first", "second"), [("imagenet1k-train-000", "imagenet1k-validation-00"), ("x_val", "x_train")]
)
def test_a_split_may_stand_anywhere_in_the_name_of_a_shard(first: str, second: str, tmp_path: Path) -> None:
    for number, name in enumerate((first, second)):
        tar(tmp_path / f"{name}.tar", [m for n in range(4) for m in sample(str(n), 10 * number + n, "ab"[n % 2])])
    inventory = sources.find(str(tmp_path))
    assert {split: len(images) for split, images in inventory.splits.items()} == {"train": 4, "test": 4}
    assert all("train" in name for name in inventory.splits["train"].names)


def test_a_name_of_two_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train-val", "test"):
        tar(tmp_path / f"{name}.tar", [("0.png", png(0))])
    with pytest.raises(UserError, match=r"train-val\.tar is named after several splits"):
        sources.find(str(tmp_path))


def test_shards_of_one_name_in_two_folders_of_a_split_stay_apart(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "training")):
        (tmp_path / folder).mkdir()
        tar(tmp_path / folder / "0.tar", [m for n in range(4) for m in sample(str(n), 10 * number + n, "abcd"[n])])
    inventory = sources.find(str(tmp_path))
    assert len(set(inventory.splits["train"].names)) == 8
