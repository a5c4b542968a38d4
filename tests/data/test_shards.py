"""Tar shards are images like any others, read in an order that suits a disk."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import save

from softedge import config
from softedge.config import Augment
from softedge.data import load, shards, sources
from softedge.data.decoding import BadImage
from softedge.data.draws import two_views
from softedge.data.shards import TarImages
from softedge.data.views import ViewLoader
from softedge.errors import UserError
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages.data import prepare

SPEC = InputSpec(32, 32, (0.5,) * 3, (0.5,) * 3)


def shard(path: Path, count: int, start: int = 0, classes: str = "7") -> Path:
    """WebDataset layout: 000.jpg, 000.cls, 001.jpg, ...; image i has the class classes[i % len], none for a space."""
    with tarfile.open(path, "w") as archive:
        for number in range(start, start + count):
            archive.add(
                save(path.parent / "raw" / f"{number:03d}.jpg", number, height=70, width=90), f"{number:03d}.jpg"
            )
            text = classes[number % len(classes)].strip().encode()
            if text:
                info = tarfile.TarInfo(f"{number:03d}.cls")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    for number in range(3):
        shard(tmp_path / f"{number}.tar", 8, 8 * number).rename(tmp_path / "shards" / f"{number}.tar")
    return tmp_path


def test_the_members_are_the_files_bit_for_bit(folder: Path) -> None:
    inventory = sources.find(str(folder / "shards"))
    images = inventory.splits["unlabelled"]
    assert isinstance(images, TarImages) and len(images) == 24 and inventory.classes == ()
    assert images.names[9] == "1.tar/009.jpg" and "all labels in the shards are '7'" in inventory.notices[0]
    for index in (0, 9, 23):
        assert images.read(index) == (folder / "raw" / f"{index:03d}.jpg").read_bytes()
    assert pickle.loads(pickle.dumps(images)).read(9) == images.read(9)
    assert len(sources.find(str(folder / "shards" / "1.tar"))) == 8


def test_folders_in_a_shard_are_not_counted_as_hidden_files(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for name in ("photos", "photos/.hidden"):
            made = tarfile.TarInfo(name)
            made.type = tarfile.DIRTYPE
            archive.addfile(made)
        archive.add(tmp_path / "0.png", "photos/0.png")
    assert sources.find(str(tmp_path / "photos.tar")).ignored == {}


def test_shards_go_through_the_data_stage(folder: Path) -> None:
    run, recipe = Run(folder / "run"), config.build({"data": {"size": 32, "mean": "auto", "std": "auto"}})
    result = prepare(run, recipe, str(folder / "shards"))
    assert result.metrics["n_pretrain"] == 24 and result.metrics["n_test"] == 0
    data = load(run)
    assert isinstance(data.pretrain, TarImages) and data.pretrain.decode(0).shape == (70, 90, 3)
    assert prepare(run, recipe, str(folder / "shards")) == result


def test_classes_come_from_cls_members_and_numbers_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "a.tar", 24, classes="93 ").rename(tmp_path / "shards" / "a.tar")
    inventory = sources.find(str(tmp_path / "shards"))
    assert inventory.classes == ("3", "9") and not inventory.notices
    assert inventory.splits["train"].labels.tolist() == [1, 0] * 8 and len(inventory.splits["unlabelled"]) == 8
    run = Run(tmp_path / "run")
    metrics = prepare(run, config.build({"data": {"size": 32}}), str(tmp_path / "shards")).metrics
    assert (metrics["n_train"], metrics["n_test"], metrics["n_pretrain"]) == (12, 4, 20)
    data = load(run)
    assert sorted(data.test.labels.tolist()) == [0, 0, 1, 1] and data.classes == ("3", "9")
    for images in (data.train, data.test):
        for name, label in zip(images.names, images.labels.tolist()):
            assert label == [1, 0][int(name[-7:-4]) % 3]


def test_shards_in_split_folders_keep_their_split(tmp_path: Path) -> None:
    for split, start, classes in (("train", 0, "01"), ("val", 12, "01 "), ("unlabeled", 24, "1")):
        (tmp_path / "data" / split).mkdir(parents=True)
        made = shard(tmp_path / f"{split}.tar", 12, start, classes if split != "unlabeled" else " ")
        made.rename(tmp_path / "data" / split / "0.tar")
    inventory = sources.find(str(tmp_path / "data"))
    assert {split: len(images) for split, images in inventory.splits.items()} == {
        "train": 12,
        "test": 8,
        "unlabelled": 12,
    }
    assert inventory.splits["test"].names[0] == "val/0.tar/012.jpg"
    assert inventory.notices == ("4 images of the test and validation shards: left out, no label or a split too many",)
    recipe = config.build({"data": {"size": 32, "mean": "auto", "std": "auto"}})
    metrics = prepare(Run(tmp_path / "run"), recipe, str(tmp_path / "data")).metrics
    assert (metrics["n_train"], metrics["n_test"], metrics["n_pretrain"]) == (12, 8, 24)


def test_shards_beside_image_files_are_named_as_not_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / "data" / "train" / name / "0.jpg", 1)
    (tmp_path / "data" / "unlabeled").mkdir()
    shard(tmp_path / "u.tar", 3).rename(tmp_path / "data" / "unlabeled" / "u.tar")
    inventory = sources.find(str(tmp_path / "data"))
    assert len(inventory) == 2
    assert inventory.notices[0].startswith("1 tar file beside the images left out")


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_shards_are_those_of_the_same_files(folder: Path, workers: int) -> None:
    tars = sources.find(str(folder / "shards")).splits["unlabelled"]
    files = sources.find(str(folder / "raw")).splits["unlabelled"]
    shown = {}
    for name, images in (("tars", tars), ("files", files)):
        views = ViewLoader(images, two_views(SPEC.size, Augment()), 8, seed=1, workers=workers)
        shown[name] = {int(i): first for step in views.epoch(0) for first, i in zip(step[0][0], step[1])}
    assert shown["tars"].keys() == shown["files"].keys()
    assert all(torch.equal(view, shown["files"][i]) for i, view in shown["tars"].items())


def test_the_order_stays_within_a_window_of_blocks_and_changes_every_epoch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BLOCK", 4)
    monkeypatch.setattr("softedge.data.views._WINDOW", 2)
    images = sources.find(str(folder / "shards")).splits["unlabelled"]
    views = ViewLoader(images, two_views(SPEC.size, Augment()), 8, seed=1, workers=0)
    orders = [views.order(epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    for order in orders:
        for window in order.reshape(3, 8):
            assert len(np.unique(window // 4)) == 2 and not np.array_equal(window, np.sort(window))


def test_a_shard_that_was_cut_off_is_used_as_far_as_it_goes(folder: Path) -> None:
    whole = (folder / "shards" / "2.tar").read_bytes()
    (folder / "shards" / "2.tar").write_bytes(whole[: len(whole) // 2])
    inventory = sources.find(str(folder / "shards"))
    assert 16 < len(inventory) < 24
    images = inventory.splits["unlabelled"]
    with pytest.raises(BadImage, match="truncated"):
        images.decode(len(images) - 1)
    run = Run(folder / "run")
    assert prepare(run, config.build({"data": {"size": 32}}), str(folder / "shards")).metrics["n_bad"] == 1


def test_tars_without_images_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    with pytest.raises(UserError, match="no images in the 1 tar file of"):
        sources.find(str(tmp_path))
