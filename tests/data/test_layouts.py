"""The layouts that archives unpack to are understood, or refused with what was found and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image

from softedge.data import sources
from softedge.data.inventory import Inventory
from softedge.errors import UserError


def labelled(found: Inventory, split: str) -> dict[str, str]:
    """Name -> class."""
    images = found.splits[split]
    return {name: found.classes[label] for name, label in zip(images.names, images.labels.tolist())}


def small(root: Path, per_class: dict[str, int], start: int = 0) -> Path:
    return class_folders(root, per_class, start, height=40, width=40)


def test_kaggles_doubled_folders_are_splits(tmp_path: Path) -> None:
    small(tmp_path / "seg_train" / "seg_train", {"buildings": 2, "forest": 2, "sea": 2})
    small(tmp_path / "seg_test" / "seg_test", {"buildings": 1, "forest": 1, "sea": 1}, 10)
    save(tmp_path / "seg_pred" / "seg_pred" / "7.jpg", 20)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("buildings", "forest", "sea")
    assert {split: len(images) for split, images in inventory.splits.items()} == {
        "train": 6,
        "test": 3,
        "unlabelled": 1,
    }
    assert labelled(inventory, "test")["seg_test/seg_test/sea/0.jpg"] == "sea"


@pytest.mark.parametrize(
    "train, test",
    [
        ("train_images", "test_images"),
        ("Training Set", "Test Set"),
        ("cats_train", "cats_val"),
        ("train2017", "val2017"),
    ],
)
def test_split_folders_with_more_words_are_splits(tmp_path: Path, train: str, test: str) -> None:
    small(tmp_path / train, {"a": 2, "b": 2})
    small(tmp_path / test, {"a": 1, "b": 1}, 10)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and [len(inventory.splits[s]) for s in ("train", "test")] == [4, 2]


def test_one_folder_around_the_splits_is_looked_through(tmp_path: Path) -> None:
    small(tmp_path / "archive" / "train", {"a": 2, "b": 2})
    small(tmp_path / "archive" / "test", {"a": 1, "b": 1}, 10)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and len(inventory.splits["test"]) == 2
    assert "the splits are in the folder archive" in inventory.notices
    assert inventory.splits["train"].decode(0).shape == (40, 40, 3)


def test_two_folders_around_the_splits_are_looked_through(tmp_path: Path) -> None:
    small(tmp_path / "flowers" / "flowers" / "train", {"a": 2, "b": 2})
    small(tmp_path / "flowers" / "flowers" / "valid", {"a": 1, "b": 1}, 10)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and len(inventory.splits["train"]) == 4
    assert "the splits are in the folder flowers/flowers" in inventory.notices


def test_splits_two_folders_below_a_class_folder_are_refused(tmp_path: Path) -> None:
    small(tmp_path / "plants" / "plants" / "train", {"a": 2, "b": 2})
    small(tmp_path / "plants" / "plants" / "valid", {"a": 1, "b": 1}, 10)
    save(tmp_path / "test" / "test" / "7.jpg", 20)
    refused(tmp_path, "holds folders (train, valid)", f"--data {tmp_path / 'plants' / 'plants'}")


def test_splits_within_class_folders_are_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        small(tmp_path / name, {"train": 3, "test": 1}, 10 * number)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog") and len(inventory.splits["test"]) == 2
    assert labelled(inventory, "train")["dog/train/1.jpg"] == "dog"


def test_classes_that_only_sound_like_splits_stay_classes(tmp_path: Path) -> None:
    small(tmp_path, {"train": 1, "test tube": 1, "bus": 1})
    assert sources.find(str(tmp_path)).classes == ("bus", "test tube", "train")


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        sources.find(str(path))
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value), caught.value


def test_folders_of_class_folders_are_refused_with_both_readings(tmp_path: Path) -> None:
    small(tmp_path / "animals", {"cat": 2, "dog": 2})
    small(tmp_path / "plants", {"oak": 2, "rose": 2}, 10)
    refused(tmp_path, "animals", "cat, dog", f"--data {tmp_path / 'animals'}", "put its images into one folder")


def test_a_copy_of_the_whole_set_within_itself_is_refused(tmp_path: Path) -> None:
    small(tmp_path, {"cat": 2, "dog": 2})
    small(tmp_path / "animals", {"cat": 2, "dog": 2})
    refused(tmp_path, "animals", "cat, dog")


def test_folders_within_a_class_that_are_numbered_are_parts_of_it(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        small(tmp_path / name, {"2021": 1, "2022-05": 1}, 10 * number)
    assert sources.find(str(tmp_path)).classes == ("cat", "dog")


@pytest.mark.parametrize("junk", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "#recycle", "$RECYCLE.BIN"])
def test_what_systems_leave_is_no_class_and_not_trained_on(tmp_path: Path, junk: str) -> None:
    small(tmp_path, {"a": 2, "b": 2})
    save(tmp_path / junk / "0.jpg", 7)
    save(tmp_path / "a" / junk / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg", 7)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b") and len(inventory) == 4 and inventory.ignored["hidden"] == 2


def test_a_class_without_images_is_named_and_counted(tmp_path: Path) -> None:
    small(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "empty").mkdir()
    (tmp_path / "raw").mkdir()
    for number in range(3):
        (tmp_path / "raw" / f"{number}.cr2").write_bytes(b"raw")
    inventory = sources.find(str(tmp_path))
    assert inventory.ignored["class folders without images"] == 2
    assert "empty: 0 other files; raw: 3 other files" in inventory.notices[-1]
    small(tmp_path / "split" / "train", {"a": 1, "b": 1})
    (tmp_path / "split" / "train" / "c").mkdir()
    inventory = sources.find(str(tmp_path / "split"))
    assert inventory.classes == ("a", "b") and "train/c: 0 other files" in inventory.notices[-1]


def mask(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 3, (40, 40), dtype=np.uint8) * 100).save(path)


def test_masks_under_the_names_of_photos_are_left_out(tmp_path: Path) -> None:
    small(tmp_path, {"a": 6, "b": 6})
    for name in ("a", "b"):
        for number in range(6):
            mask(tmp_path / name / f"{number}.png", number)
    inventory = sources.find(str(tmp_path))
    assert len(inventory) == 12 and all(name.endswith(".jpg") for name in inventory.splits["train"].names)
    assert inventory.ignored["masks"] == 12 and "12 masks under the names of photos" in inventory.notices[0]


@pytest.mark.parametrize("name", ["a/{}_depth.png", "a/{}-disparity.jpg", "a/depth/{}.png"])
def test_maps_of_depth_beside_photos_are_left_out(name: str, tmp_path: Path) -> None:
    small(tmp_path, {"a": 6, "b": 6})
    for number in range(6):
        save(tmp_path / name.format(number), 50 + number)
    inventory = sources.find(str(tmp_path))
    assert len(inventory) == 12 and inventory.ignored == {"maps": 6} and inventory.classes == ("a", "b")
    assert "6 files are named like maps of photos, of depth and the like (a/" in inventory.notices[0]


def test_depth_beside_a_folder_of_photos_is_no_class_and_alone_it_is_photos(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "rgb" / f"{number}.jpg", number)
        save(tmp_path / "depth" / f"{number}.png", 9 + number)
    refused(tmp_path, "only one class ('rgb')", f"give {tmp_path / 'rgb'}")
    alone = small(tmp_path / "other", {"depth": 3, "height": 3})
    assert sources.find(str(alone)).classes == ("depth", "height")


@pytest.mark.parametrize("side", [20, 40])
def test_a_folder_thumb_beside_classes_is_one_of_thumbnails_where_its_pictures_are_smaller(
    side: int, tmp_path: Path
) -> None:
    small(tmp_path, {"index": 4, "little": 4})
    (tmp_path / "thumb").mkdir()
    for number in range(4):
        Image.fromarray(photo(70 + number, side, side)).save(tmp_path / "thumb" / f"{number}.jpg")
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == (("index", "little") if side == 20 else ("index", "little", "thumb"))
    assert inventory.ignored == ({"thumbnails": 4} if side == 20 else {})


def test_photos_of_one_name_with_two_types_are_kept_and_named(tmp_path: Path) -> None:
    small(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / "a" / "0.webp", 0)
    inventory = sources.find(str(tmp_path))
    assert (
        len(inventory) == 7
        and "1 picture lies there under one name with two types (.jpg and .webp" in inventory.notices[0]
    )


def test_a_folder_of_masks_beside_the_photos_is_no_class(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "images" / f"{number}.jpg", number)
        mask(tmp_path / "masks" / f"{number}.png", number)
    refused(tmp_path, "only one class ('images')", f"give {tmp_path / 'images'}")


@pytest.mark.parametrize("folder", ["labels", "train_masks", "gtFine", "Masks/all"])
def test_a_folder_called_and_drawn_like_masks_is_no_class(tmp_path: Path, folder: str) -> None:
    small(tmp_path, {"cat": 4, "dog": 4})
    for number in range(4):
        mask(tmp_path / folder / f"{number}.png", number)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog")
    assert any(n.startswith(f"4 files in {folder.split('/')[0]}: called and drawn") for n in inventory.notices)


def test_a_class_called_labels_that_holds_photos_is_a_class(tmp_path: Path) -> None:
    small(tmp_path, {"labels": 4, "unlabelled mask": 4})
    assert sources.find(str(tmp_path)).classes == ("labels", "unlabelled mask")


@pytest.mark.parametrize(
    "annotation, kind",
    [
        ("annotations/instances_train2017.json", "COCO"),
        ("train2017/_annotations.coco.json", "COCO"),
        ("Annotations/000001.xml", "Pascal VOC"),
        ("labels/train2017/000001.txt", "YOLO"),
    ],
)
def test_sets_with_boxes_are_refused_and_the_way_named(tmp_path: Path, annotation: str, kind: str) -> None:
    for folder in ("train2017", "val2017", *(("images",) if kind == "YOLO" else ())):
        save(tmp_path / folder / "000001.jpg", 1)
    (tmp_path / annotation).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / annotation).write_text("{}")
    refused(tmp_path, f"{kind}'s layout", annotation, "softedge transfer")


def test_two_spellings_of_one_letter_are_one_class(tmp_path: Path) -> None:
    small(tmp_path, {unicodedata.normalize("NFC", "Bär"): 2, "Hund": 2})
    small(tmp_path, {unicodedata.normalize("NFD", "Bär"): 1}, 10)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == (unicodedata.normalize("NFC", "Bär"), "Hund")
    assert np.bincount(inventory.splits["train"].labels).tolist() == [3, 2]
    assert all(inventory.splits["train"].decode(i).shape == (40, 40, 3) for i in range(5))


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_names_that_are_not_utf8_are_escaped_and_still_found(tmp_path: Path) -> None:
    small(tmp_path, {"a": 1, "b": 1})
    os.rename(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(os.fsencode(tmp_path / "b" / "0.jpg"), os.fsencode(tmp_path / "b") + b"/\xff.jpg")
    save(tmp_path / "b" / r"\xfe.jpg", 9)  # a name that only looks escaped
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("b", r"caf\xe9")
    assert sorted(inventory.splits["train"].names) == [r"b/\xfe.jpg", r"b/\xff.jpg", r"caf\xe9/0.jpg"]
    assert all(inventory.splits["train"].decode(i).ndim == 3 for i in range(3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere names do not depend on the locale")
def test_a_locale_that_cannot_name_the_files_is_said_in_one_line(tmp_path: Path) -> None:
    """In place of a class without a readable image."""
    small(tmp_path / "data", {"a": 2, "émoji": 2})
    small(tmp_path / "é", {"a": 2, "b": 2})
    small(tmp_path / "plain", {"a": 20, "b": 20})
    python = [sys.executable, "-m", "softedge", "data"]
    for folder, code, name in (("data", 2, "émoji/0.jpg"), ("é", 2, "é"), ("plain", 0, "")):
        environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run([*python, folder], cwd=tmp_path, env=environment, capture_output=True)
        said = done.stderr.decode()
        assert done.returncode == code, said
        line = f"cannot name files such as {name}; set LC_ALL=C.UTF-8, or PYTHONUTF8=1\n"
        assert not name or (said.endswith(line) and said.count("\n") == 1)


def test_a_link_to_itself_ends_nothing(tmp_path: Path) -> None:
    small(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a" / "loop")
    (tmp_path / "a" / "loop.jpg").symlink_to(tmp_path / "a" / "loop.jpg")
    inventory = sources.find(str(tmp_path))
    assert len(inventory) == 3 and inventory.ignored["not images"] == 1


def test_a_loose_picture_does_not_make_a_class_of_a_folder_of_classes(tmp_path: Path) -> None:
    small(tmp_path / "animals", {"cat": 12, "dog": 12})
    small(tmp_path, {"plants": 12}, 40)
    save(tmp_path / "animals" / "cover.jpg", 99)
    with pytest.raises(UserError, match=r"the folder animals that holds folders \(cat, dog\) and 1 loose image:"):
        sources.find(str(tmp_path))


def finished_run(folder: Path, source: str) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "recipe.toml").write_text(f'[data]\nsource = "{source}"\n')
    (folder / "data" / "index.json").write_text("")
    save(folder / "export" / "onnx-fp32" / "golden" / "0.png", 50)
    save(folder / "map" / "thumbnails.jpg", 51)
    return folder


def test_a_run_within_the_photos_is_none_of_them(tmp_path: Path) -> None:
    small(tmp_path, {"cat": 2, "dog": 2})
    finished_run(tmp_path / "runs" / "photos", "photos")
    (tmp_path / "begun").mkdir()
    for name in ("recipe.toml", ".lock"):  # of a run that has only just begun
        (tmp_path / "begun" / name).write_text("")
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog") and inventory.ignored == {"softedge runs": 2}
    assert inventory.notices == ("2 softedge runs among the images left out (begun, runs/photos)",)


def test_a_run_given_as_images_is_refused_in_one_line_that_names_its_images(tmp_path, monkeypatch, capsys) -> None:
    from softedge.cli import main

    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path / "mine", "/photos/of/birds")
    line = f"{run} is a softedge run, not a folder of images; its images come from /photos/of/birds: give that"
    with pytest.raises(UserError, match=f"^{line}$"):
        sources.find("mine")
    for words in (
        "data mine",
        "data mine --shrink small",
        "plan --data mine",
        "deploy --data mine",
        "pretrain --data mine --out runs/new",
        "recipes suggest --data mine",
        "review mine",
    ):
        with pytest.raises(SystemExit) as left:
            main(words.split())
        out, err = capsys.readouterr()
        assert (left.value.code, out, err.splitlines()[-1]) == (2, "", f"error: {line}"), words
        assert all(above.startswith("weights: ") for above in err.splitlines()[:-1]), err
    (run / "recipe.toml").write_text("[data")
    with pytest.raises(UserError, match="is a softedge run, not a folder of images; give the folder its images come"):
        sources.find("mine")


def test_pictures_corrected_in_a_run_are_images(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "mine", "photos")
    small(run / "corrections", {"cat": 2, "dog": 2})
    assert sources.find(str(run / "corrections")).classes == ("cat", "dog")


@pytest.mark.skipif(os.sep != "/", reason="a backslash is a separator here")
def test_backslashes_that_a_zip_from_windows_left_in_names_are_folders(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{('cat', 'dog')[number % 2]}\\{number}.png", number, height=40, width=40)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("cat", "dog") and labelled(inventory, "train")["cat\\0.png"] == "cat"
    assert any("6 names have backslashes" in notice for notice in inventory.notices)


def test_folders_of_two_domains_are_named_as_doubtful_classes(tmp_path: Path) -> None:
    small(tmp_path, {"trainA": 2, "trainB": 2, "testA": 2, "testB": 2})
    assert any("4 of 4 classes are named like" in line for line in sources.find(str(tmp_path)).notices)
