"""Folders and shards whose names or labels mislead, after public reports of other projects; a test's id is the thread.

What was tried, and what of it failed here at first: ``benchmarks/results/reported-inputs.md``.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image
from test_shard_labels import labels, png, tar

from softedge.data import sources
from softedge.errors import UserError


def small(root: Path, per_class: dict[str, int], start: int = 0) -> Path:
    return class_folders(root, per_class, start, height=40, width=40)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("100UBCAM", "101UBCAM"), id="ubports/camera-app#15"),
        pytest.param(("December 2020", "January 2021"), id="photoprism/photoprism#754"),
        pytest.param(("Photos from 2015", "Photos from 2016"), id="TheLastGimbus/GooglePhotosTakeoutHelper#30"),
        pytest.param(("2013-04-12", "2013-07-12"), id="TheLastGimbus/GooglePhotosTakeoutHelper#7"),
        pytest.param(("2019", "2020"), id="photoprism/photoprism#597"),
    ],
)
def test_what_cameras_and_albums_call_their_folders_is_cautioned_about(names: tuple[str, str], tmp_path: Path) -> None:
    inventory = sources.find(str(small(tmp_path, dict.fromkeys(names, 2))))
    assert any(line.startswith("caution: 2 of 2 classes") for line in inventory.notices)


def test_years_with_months_in_them_are_cautioned_about(tmp_path: Path) -> None:
    """elementary/photos#545: 2019/12/x.jpg."""
    for year in ("2019", "2020"):
        small(tmp_path / year, {"01": 2, "12": 2})
    assert any(line.startswith("caution: 2 of 2 classes") for line in sources.find(str(tmp_path)).notices)


def test_named_folders_in_years_are_refused_as_classes_of_two_kinds(tmp_path: Path) -> None:
    """Salvoxia/immich-folder-album-creator#58"""
    for year in ("2020", "2021"):
        small(tmp_path / year, {"Anniversary X": 2, "Anniversary Y": 2})
    with pytest.raises(UserError, match=r"folder 2020 that holds folders \(Anniversary X, Anniversary Y\)"):
        sources.find(str(tmp_path))


def test_parts_of_a_class_are_no_classes(tmp_path: Path) -> None:
    """jolibrain/deepdetect#503"""
    for name in ("0", "1"):
        small(tmp_path / name, {"split_1": 2, "split_2": 2, "split_etc": 2})
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("0", "1") and len(inventory) == 12


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(".thumbnails", id="elementary/photos#483"),
        pytest.param("a/.@__thumb", id="Marginal/QuickLookVideo#52"),
        pytest.param("a/@eaDir/0.jpg", id="qarmin/czkawka#2019"),
        pytest.param("thumbs", id="owncloud-archive/apps#1008"),
    ],
)
def test_thumbnails_that_programs_keep_are_passed_over(folder: str, tmp_path: Path) -> None:
    small(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / folder / "SYNOPHOTO_THUMB_M.jpg", 0)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and len(inventory) == 6 and sum(inventory.ignored.values()) == 1


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", [pytest.param("no_label", id="open-edge-platform/datumaro#41"), "unlabeled"])
def test_a_folder_of_images_without_label_is_no_class(name: str, split: bool, tmp_path: Path) -> None:
    root = small(tmp_path / "train" if split else tmp_path, {"cat": 3, "dog": 3, name: 4})
    if split:
        small(tmp_path / "test", {"cat": 2, "dog": 2, name: 1}, 50)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog") and root.is_dir()
    assert {s: len(images) for s, images in inventory.splits.items()} == {
        "train": 6, "unlabelled": 4, **({"test": 4} if split else {})
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "mode"),
    [
        pytest.param("a (1)_mask.png", "L", id="liangchen527/SLADD#14"),
        pytest.param("a (1)_mask_1.png", "RGBA", id="FengheTan9/CMUNeXt#11"),
    ],
)
def test_masks_beside_photos_of_their_own_type_are_left_out(mask: str, mode: str, tmp_path: Path) -> None:
    small(tmp_path, {"normal": 3})
    (tmp_path / "benign").mkdir()
    for number in range(3):
        Image.fromarray(photo(50 + number, 40, 40)).save(tmp_path / "benign" / f"a ({number + 1}).png")
        drawn = Image.fromarray((np.eye(40) > 0).astype(np.uint8) * 255).convert(mode)
        drawn.save(tmp_path / "benign" / mask.replace("(1)", f"({number + 1})"))
    inventory = sources.find(str(tmp_path))
    names = Counter(name.split("/")[0] for name in inventory.splits["train"].names)
    assert names == {"normal": 3, "benign": 3} and inventory.ignored["masks"] == 3


@pytest.mark.parametrize(
    ("trained", "tested", "empty"),
    [
        pytest.param("abc", "ab", "c", id="huggingface/pytorch-image-models#957"),
        pytest.param(("0", "90", "180", "270"), ("0", "90", "270"), "", id="ultralytics/ultralytics#13936"),
        pytest.param("abc", "bc", "a", id="pytorch/vision#8297"),
    ],
)
def test_a_class_that_is_not_tested_moves_no_label(trained: str, tested: str, empty: str, tmp_path: Path) -> None:
    small(tmp_path / "train", dict.fromkeys(trained, 2))
    small(tmp_path / "val", dict.fromkeys(tested, 1), 50)
    if empty:
        (tmp_path / "val" / empty).mkdir()
    inventory = sources.find(str(tmp_path))
    test = inventory.splits["test"]
    assert [inventory.classes[label] for label in test.labels] == [name.split("/")[1] for name in test.names]
    assert any("1 class has no images in the val split" in line for line in inventory.notices)
    assert inventory.ignored.get("class folders without images", 0) == len(empty)


def test_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    """huggingface/datasets#7880: train/x.jpg and test/y.jpg."""
    save(tmp_path / "train" / "0.jpg", 0)
    save(tmp_path / "test" / "1.jpg", 1)
    with pytest.raises(UserError, match="the test split of .* has no class folders"):
        sources.find(str(tmp_path))


def test_one_folder_beside_loose_images_is_no_class(tmp_path: Path) -> None:
    """huggingface/datasets#5153"""
    save(tmp_path / "data" / "0.jpg", 0)
    save(tmp_path / "1.jpg", 1)
    with pytest.raises(UserError, match=r"only one class \('data'\)"):
        sources.find(str(tmp_path))


def test_the_folder_valid_is_a_split(tmp_path: Path) -> None:
    """roboflow/roboflow-python#153"""
    small(tmp_path / "train", {"a": 2, "b": 2})
    small(tmp_path / "valid", {"a": 1, "b": 1}, 50)
    assert len(sources.find(str(tmp_path)).splits["test"]) == 2


# Shards


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    """huggingface/datasets#6931"""
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(tmp_path / "a.tar", [("0.png", png(0))]).read_bytes()))
    with pytest.raises(UserError, match="gunzip"):
        sources.find(str(tmp_path / "a.tar.gz"))


def test_facts_in_json_before_the_image_are_no_labels(tmp_path: Path) -> None:
    """facebookresearch/MetaCLIP#59: uuid1.json, uuid1.jpeg, ..."""
    facts = json.dumps({"texts": ["a cat", "cat"], "url": "x"}).encode()
    members = [(f"u{n}.{end}", png(n) if end == "png" else facts) for n in range(3) for end in ("json", "png")]
    assert set(labels(tar(tmp_path / "a.tar", members)).values()) == {""}


def test_labels_of_imagenet_shards_are_read_with_and_without_cls(tmp_path: Path) -> None:
    """huggingface/pytorch-image-models#2154: {"label": 3, "filename": ...} beside .cls, or alone."""
    facts = [json.dumps({"label": n % 2, "filename": f"n{n}.JPEG", "width": 40}).encode() for n in range(4)]
    images = [(f"n{n}.png", png(n)) for n in range(4)]
    both = [*images, *((f"n{n}.json", facts[n]) for n in range(4)), *((f"n{n}.cls", b"%d" % (n % 2)) for n in range(4))]
    alone = [*images, *((f"n{n}.json", facts[n]) for n in range(4))]
    expected = {f"n{n}.png": str(n % 2) for n in range(4)}
    assert labels(tar(tmp_path / "a.tar", both)) == labels(tar(tmp_path / "b.tar", alone)) == expected


def test_headers_of_either_kind_are_read(tmp_path: Path) -> None:
    """NVIDIA/DALI#3640"""
    tar(tmp_path / "gnu.tar", [("0.png", png(0)), ("0.cls", b"a"), ("1.png", png(1)), ("1.cls", b"b")])
    with (
        tarfile.open(tmp_path / "gnu.tar") as old,
        tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            member.pax_headers = {"mtime": "1.5", "comment": "ü"}
            new.addfile(member, old.extractfile(member))
    assert labels(tmp_path / "pax.tar") == {"0.png": "a", "1.png": "b"}
