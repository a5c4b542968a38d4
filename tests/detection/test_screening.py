"""Pictures that cannot be used, and pictures in both splits, before a detector is trained."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from voc_squares import squares

from softedge.detection import pictures, screening, voc
from softedge.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return squares(tmp_path / "voc", {"train": 4, "val": 3})


def screened(folder):
    train, test = voc.read(folder)
    left_out = screening.screen(train, test, "voc")
    return *left_out.apply(train, test), left_out.notices


def test_a_picture_of_the_test_split_is_not_trained_on(folder):
    copy = Image.open(folder / "JPEGImages/val1.png")
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", "another program")  # other bytes, the same picture
    copy.save(folder / "JPEGImages/train2.png", pnginfo=about)
    train, test, notices = screened(folder)
    assert [scene.path.stem for scene in train.scenes] == ["train0", "train1", "train3"] and len(test) == 3
    assert "1 training picture is in the test split" in notices[0] and "train2.png" in notices[0]


def landscape(seed: int) -> Image.Image:
    """A picture with coarse and fine detail, unlike that of another seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(
        (96, 96), Image.Resampling.BICUBIC
    )
    return Image.blend(coarse, Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)), 0.2)


def test_a_near_duplicate_of_a_test_picture_is_not_trained_on(folder):
    for number in range(3):
        landscape(number).save(folder / f"JPEGImages/val{number}.png")
    for number in range(4):
        landscape(10 + number).save(folder / f"JPEGImages/train{number}.png")
    brighter = landscape(1).point(lambda value: min(255, round(1.1 * value)))
    brighter.crop((2, 2, 95, 94)).resize((96, 96)).save(folder / "JPEGImages/train2.png")
    train, test, notices = screened(folder)
    assert [scene.path.stem for scene in train.scenes] == ["train0", "train1", "train3"] and len(test) == 3
    assert notices == (
        "voc (train): 1 training picture nearly duplicates test pictures and is not trained on (train2.png: val1.png)",
    )


def test_frames_of_a_film_stay_with_a_notice(tmp_path):
    folder = squares(tmp_path / "voc", {"train": 6, "val": 6})
    for number in range(6):
        landscape(number).save(folder / f"JPEGImages/val{number}.png")
        landscape(number).point(lambda value: round(0.9 * value)).save(folder / f"JPEGImages/train{number}.png")
    train, _, notices = screened(folder)
    assert len(train) == 6 and "6 training pictures nearly duplicate test pictures and stay" in notices[0]


def test_truncated_pictures_are_left_out_of_both_splits(folder):
    for name in ("train0", "val0"):
        path = folder / f"JPEGImages/{name}.png"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    train, test, notices = screened(folder)
    assert len(train) == 3 and len(test) == 2
    assert "train0.png: truncated" in notices[0] and "val0.png: truncated" in notices[1]


def test_a_picture_of_another_size_than_annotated_is_left_out(tmp_path):
    from test_coco import image, make, thing

    from softedge.detection import coco

    root = make(tmp_path, [image(1), image(2)], [thing(1), thing(2, on=2)])
    for split, colour in (("train2017", "red"), ("val2017", "blue")):
        Image.new("RGB", (40, 30), colour).save(root / split / "1.jpg")
        Image.new("RGB", (30, 40), colour).save(root / split / "2.jpg")
    train, test = coco.read(root)
    left_out = screening.screen(train, test, "coco")
    assert len(left_out.train) == 1 and "30 x 40 pixels, its annotation says 40 x 30" in left_out.notices[0]


def test_a_split_with_nothing_left_is_one_clear_line(folder):
    (folder / "ImageSets/Main/train.txt").write_text("val0\nval1")
    with pytest.raises(UserError, match=r"no usable training picture; voc \(train\): 2 training pictures are in the"):
        screened(folder)


def objects(*things: tuple[str, int, int, int, int]) -> str:
    """The annotation of objects: class, xmin, ymin, xmax, ymax."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = ["".join(f"<{c}>{v}</{c}>" for c, v in zip(corners, box)) for _, *box in things]
    listed = (f"<object><name>{name}</name><bndbox>{box}</bndbox></object>" for (name, *_), box in zip(things, boxes))
    return f"<annotation>{''.join(listed)}</annotation>"


RED, BLUE = ("red", 5, 5, 30, 30), ("blue", 50, 5, 80, 30)


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        ([RED, BLUE], [RED], "train1.png: 1 blue, 1 red; train2.png: 1 red"),
        ([RED], [], "train1.png: 1 red; train2.png: no object"),
        ([RED], [("blue", 5, 5, 30, 30)], "train1.png: 1 red; train2.png: 1 blue"),
        ([RED, RED], [RED, ("red", 40, 40, 70, 70)], "train1.png: 2 red; train2.png: the same in other places"),
    ],
)
def test_a_training_picture_with_other_objects_under_another_name_is_set_aside_and_named(folder, first, second, part):
    picture = Image.open(folder / "JPEGImages/train1.png")
    picture.save(folder / "JPEGImages/train2.png", compress_level=1)  # other bytes, the same pixels
    for name, things in (("train1", first), ("train2", second)):
        (folder / f"Annotations/{name}.xml").write_text(objects(*things))
    train, test, notices = screened(folder)
    assert [scene.path.stem for scene in train.scenes] == ["train0", "train3"] and len(test) == 3
    (line,) = notices
    assert "1 picture is there under several names with different objects, and not trained on" in line
    assert part in line


def test_a_training_picture_with_the_same_objects_under_another_name_is_trained_on(folder):
    Image.open(folder / "JPEGImages/train1.png").save(folder / "JPEGImages/train2.png", compress_level=1)
    (folder / "Annotations/train1.xml").write_text(objects(RED, BLUE))
    (folder / "Annotations/train2.xml").write_text(objects(BLUE, ("red", 6, 4, 31, 29)))  # drawn by somebody else
    train, _, notices = screened(folder)
    assert len(train) == 4 and not notices


def test_copies_within_the_test_split_and_across_it_are_named_with_what_differs(folder):
    for split in ("val", "train"):
        Image.open(folder / "JPEGImages/val1.png").save(folder / f"JPEGImages/{split}2.png")
    (folder / "Annotations/val1.xml").write_text(objects(RED, BLUE))
    (folder / "Annotations/val2.xml").write_text(objects(RED))
    (folder / "Annotations/train2.xml").write_text(objects(BLUE))
    train, test, notices = screened(folder)
    assert len(train) == 3 and len(test) == 3
    assert (
        "1 of them has other objects there: one of the two is wrong (train2.png: 1 blue; val2.png: 1 red)" in notices[1]
    )
    assert "no detector can find both (val1.png: 1 blue, 1 red; val2.png: 1 red)" in notices[2]
    (folder / "Annotations/val2.xml").write_text(objects(RED, BLUE))
    assert "test picture has copies in the test split: each counts (val1.png and val2.png)" in screened(folder)[2][2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_an_object_to_learn_or_find_is_refused(folder, split):
    for path in folder.glob(f"Annotations/{split}*.xml"):
        path.write_text(objects(("red", 5, 5, 4, 4)))
    what = {"train": "training", "val": "test"}[split]
    with pytest.raises(UserError, match=rf"no {what} picture has an object with a box \(\d are crowds or have no area"):
        screened(folder)


@pytest.mark.parametrize(("bits", "told"), [(12, True), (16, False)])
@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_pictures_of_more_bits_than_they_use_are_told_to_be_nearly_black(folder, bits, told, mode):
    import cv2

    for path in (folder / "JPEGImages").glob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(np.uint16) << (bits - 8)
        cv2.imwrite(str(path), pixels[:, :, 0] if mode == "grey" else pixels)
    train, _, notices = screened(folder)
    assert (pictures.pixels(train.scenes[0]).max() < 16) == told
    lines = [line for line in notices if "nearly black" in line]
    assert len(lines) == told and all("7 pictures in" in line and f"use {bits}" in line for line in lines)
