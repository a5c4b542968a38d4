"""Folders of sessions, thumbnails and masks among the photos: neither classes nor photos in silence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save
from PIL import Image

import softedge
from softedge import config
from softedge.data import describe, describe_text, sources
from softedge.errors import UserError
from softedge.run import Run
from softedge.stages.data import prepare
from softedge.stages.plan import plan


def small(root: Path, per_class: dict[str, int], start: int = 0) -> Path:
    return class_folders(root, per_class, start, height=40, width=40)


# Sessions


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_2024_01", "IMG_2024_02"),
        ("100CANON", "101CANON"),
        ("100_FUJI", "101MSDCF"),
        ("100APPLE", "101APPLE"),
        ("2024-05-01", "2024-05-02"),
        ("20240501_1230", "20240502_0915"),
        ("2022", "2023"),
        ("session1", "session2"),
        ("batch_a", "batch_b"),
        ("New folder", "New folder (2)"),
        ("Camera", "Screenshots"),
    ],
)
def test_classes_named_like_sessions_are_cautioned_about_by_name(names: tuple[str, str], tmp_path: Path) -> None:
    inventory = sources.find(str(small(tmp_path, dict.fromkeys(names, 2))))
    assert inventory.classes == names  # no refusal: a class may be called so
    (line,) = (line for line in inventory.notices if line.startswith("caution: 2 of 2 classes"))
    assert all(part in line for part in (*names, f"{tmp_path}/unlabeled", "softedge review"))


def test_one_folder_of_a_day_among_classes_is_named_alone(tmp_path: Path) -> None:
    inventory = sources.find(str(small(tmp_path, {"cat": 2, "dog": 2, "2024-05-01": 2})))
    assert any("caution: 1 of 3 classes" in line and "(2024-05-01)" in line for line in inventory.notices)


@pytest.mark.parametrize(
    "names",
    [
        ("0", "1"),
        ("00001", "00002"),
        ("c0", "c1"),
        ("class1", "class2"),
        ("n01440764", "n01443537"),
        ("001.ak47", "002.flag"),
        ("200_euros", "500_euros"),
        ("2024", "cat"),
        ("123456", "234567"),
        ("camera", "laptop"),
        ("Monday", "photograph"),
    ],
)
def test_other_names_of_classes_are_not_cautioned_about(names: tuple[str, str], tmp_path: Path) -> None:
    assert sources.find(str(small(tmp_path, dict.fromkeys(names, 2)))).notices == ()


def test_softedge_data_shows_the_caution_and_the_way_out_works(tmp_path: Path) -> None:
    small(tmp_path, {"100CANON": 4, "101CANON": 4})
    recipe = config.build({"data": {"size": 32}})
    assert "caution: 2 of 2 classes" in describe_text(describe(str(tmp_path), recipe))
    (tmp_path / "unlabeled").mkdir()
    for name in ("100CANON", "101CANON"):
        (tmp_path / name).rename(tmp_path / "unlabeled" / name)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == () and {split: len(images) for split, images in inventory.splits.items()} == {
        "unlabelled": 8
    }


def test_the_caution_comes_before_any_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small(tmp_path / "photos", {"2024-05-01": 4, "2024-05-02": 4})
    prepare(Run(tmp_path / "run"), config.build({"data": {"size": 32}}), str(source))
    assert "data: caution: 2 of 2 classes are named like days" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softedge.eval.pace.measured", lambda *settings: pytest.fail("measured", pytrace=False))
        with pytest.raises(pytest.fail.Exception, match="measured"):
            plan(str(source))
    assert "caution: 2 of 2 classes are named like days" in capsys.readouterr().err


# Folders of what is not sorted


@pytest.mark.parametrize(
    "name", ["misc", "Other", "UNSORTED", "unlabeled_images", "Unlabelled Images", "to-do", "temp"]
)
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_folder_of_leftovers_is_a_class_with_a_caution_and_the_way_out_works(
    name: str, split: str, tmp_path: Path
) -> None:
    small(tmp_path / split, {"cat": 2, "dog": 2, name: 2})
    if split:
        small(tmp_path / "test", {"cat": 1, "dog": 1}, 10)
    inventory = sources.find(str(tmp_path))
    assert {*inventory.classes} == {"cat", "dog", name}  # no refusal: a class may be called so
    assert [line for line in inventory.notices if line.startswith("caution")] == [
        f"caution: the folder '{name}' is taken as a class; leave it where it is if that is meant, else move it into "
        f"{tmp_path}/unlabeled"
    ]
    (tmp_path / "unlabeled").mkdir()
    (tmp_path / split / name).rename(tmp_path / "unlabeled" / name)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog") and len(inventory.splits["unlabelled"]) == 2
    assert not any(line.startswith("caution") for line in inventory.notices)


def test_several_folders_of_leftovers_share_a_line(tmp_path: Path) -> None:
    small(tmp_path, {"cat": 2, "misc": 2, "new": 2})
    (line,) = sources.find(str(tmp_path)).notices
    assert line == (
        "caution: the folders 'misc', 'new' are taken as classes; leave them where they are if that is meant, else "
        f"move them into {tmp_path}/unlabeled"
    )


@pytest.mark.parametrize(
    "names",
    [
        ("newt", "salamander"),
        ("newspaper", "brother"),
        ("temple", "template"),
        ("other_side", "unknown_soldier"),
        ("new_york", "temperature"),
        ("trash", "paper"),
        ("background", "none"),
        ("unlabeled", "cat", "dog"),
    ],
)
def test_names_that_only_contain_such_a_word_are_not_cautioned_about(names: tuple[str, ...], tmp_path: Path) -> None:
    notices = sources.find(str(small(tmp_path, dict.fromkeys(names, 2)))).notices
    assert not any("caution" in line for line in notices)


def test_a_class_that_somebody_gave_by_hand_is_meant(tmp_path: Path) -> None:
    small(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "labels.csv").write_text("name,label\ncat/0.jpg,other\n")
    inventory = sources.find(str(tmp_path))
    assert "other" in inventory.classes and not any("caution" in line for line in inventory.notices)
    small(tmp_path, {"misc": 1})
    (tmp_path / "labels.csv").write_text("name,label\nmisc/0.jpg,cat\n")
    inventory = sources.find(str(tmp_path))
    assert "misc" not in inventory.classes and not any("caution" in line for line in inventory.notices)


def test_a_deployment_says_a_caution_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plan, before it is measured; the data stage of the same command does not repeat it."""
    source = small(tmp_path / "photos", {"cat": 8, "dog": 8, "misc": 8})
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (0.01, 0))
    monkeypatch.setattr("softedge.stages.deploy.chain", lambda *_: exit())  # the data stage is done
    for out, recipe in (("planned", None), ("named", "light-moco")):
        with pytest.raises(SystemExit):
            softedge.deploy(data=source, out=tmp_path / out, recipe=recipe)
        said = capsys.readouterr().err
        assert (tmp_path / out / "data/index.json").is_file() and said.count("caution: the folder 'misc' is") == 1


# Thumbnails


@pytest.mark.parametrize(
    "folder", ["thumbs", "Thumbnails", "a/thumbnails", ".thumbnails", "a/@eaDir", "cache", "a/previews", "preview"]
)
def test_thumbnails_are_no_class_and_never_trained_on(folder: str, tmp_path: Path) -> None:
    small(tmp_path, {"a": 4, "b": 4})
    for number in range(3):
        save(tmp_path / folder / f"{number}.jpg", number)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and len(inventory) == 8
    if folder.split("/")[-1].startswith((".", "@")):
        assert inventory.ignored == {"hidden": 1}
    else:
        assert inventory.ignored == {"thumbnails": 3}
        assert f"3 images are taken for thumbnails and left out ({folder.split('/')[-1]})" in inventory.notices[0]


def test_thumbnails_of_test_images_are_in_no_split(tmp_path: Path) -> None:
    small(tmp_path / "train", {"a": 3, "b": 3})
    small(tmp_path / "test", {"a": 2, "b": 2}, 10)
    for folder in ("train/thumbs", "test/thumbs", "thumbs", "test/a/cache"):
        save(tmp_path / folder / "0.jpg", 10)
    inventory = sources.find(str(tmp_path))
    assert [len(inventory.splits[split]) for split in ("train", "test")] == [6, 4] and inventory.ignored[
        "thumbnails"
    ] == 4


def test_files_named_as_thumbnails_of_a_photo_beside_them_are_left_out(tmp_path: Path) -> None:
    small(tmp_path, {"a": 3, "b": 3})
    for name in ("0_thumb", "thumb_1", "2-preview", "green thumb"):
        save(tmp_path / "a" / f"{name}.jpg", 9)
    assert Counter(n.split("/")[0] for n in sources.find(str(tmp_path)).splits["train"].names) == {"a": 4, "b": 3}


def test_a_thumb_may_be_a_class(tmp_path: Path) -> None:
    assert sources.find(str(small(tmp_path, {"thumb": 3, "index": 3}))).classes == ("index", "thumb")


@pytest.mark.parametrize(
    "names, text", [(("index", "preview"), "only one class"), (("cache",), "folders of thumbnails")]
)
def test_a_class_that_is_taken_for_thumbnails_is_named_in_the_refusal(
    names: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{text}.*3 images are taken for thumbnails.*rename those that are not"):
        sources.find(str(small(tmp_path, dict.fromkeys(names, 3))))


# Masks


def mask(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 2, (5, 5), dtype=np.uint8) * 255
    Image.fromarray(np.kron(cells, np.ones((8, 8), np.uint8))).save(path)


@pytest.mark.parametrize(
    "name",
    [
        "{}_mask.png",
        "{}_seg.png",
        "{}_label.png",
        "{}-mask.png",
        "{}.mask.png",
        "{}_MASK_1.png",
        "{}_mask.jpg",
        "masks/{}.png",
    ],
)
def test_masks_named_after_a_photo_are_left_out_and_said(name: str, tmp_path: Path) -> None:
    small(tmp_path, {"a": 4, "b": 4})
    for number in range(4):
        mask(tmp_path / "a" / name.format(number), number)
    inventory = sources.find(str(tmp_path))
    assert sorted(inventory.splits["train"].names) == [f"{c}/{n}.jpg" for c in "ab" for n in range(4)]
    assert inventory.ignored == {"masks": 4} and inventory.notices[0].startswith("4 files ")
    assert " and drawn like masks" in inventory.notices[0]


def test_photos_named_like_masks_stay_and_are_said(tmp_path: Path) -> None:
    """Faces with masks: 0_mask.jpg beside 0.jpg."""
    small(tmp_path, {"a": 4, "b": 4})
    for number in range(4):
        save(tmp_path / "a" / f"{number}_mask.jpg", 20 + number)
    inventory = sources.find(str(tmp_path))
    assert len(inventory) == 12 and "taken as photos" in inventory.notices[0]


# Classes without images


def test_a_class_folder_that_is_empty_in_the_test_split_is_named_and_counted(tmp_path: Path) -> None:
    small(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    small(tmp_path / "test", {"a": 2, "b": 2}, 10)
    for name in ("c", "d"):
        (tmp_path / "test" / name).mkdir()
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b", "c") and inventory.ignored == {"class folders without images": 2}
    assert "1 class has no images in the test split ('c')" in inventory.notices
    assert any("test/c: 0 other files; test/d: 0 other files" in line for line in inventory.notices)


def test_a_class_whose_only_test_image_cannot_be_read_is_named(tmp_path: Path) -> None:
    small(tmp_path / "train", {"a": 3, "b": 3})
    small(tmp_path / "test", {"a": 2}, 10)
    (tmp_path / "test" / "b").mkdir()
    (tmp_path / "test" / "b" / "0.jpg").write_bytes(b"no picture")
    shown = describe(str(tmp_path), config.build({"data": {"size": 32}}))
    assert any("1 class has no test image that can be used ('b')" in line for line in shown["notices"])
