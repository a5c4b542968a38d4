"""Pascal VOC folders, good and bad."""

from __future__ import annotations

import os
import shutil

import pytest
from PIL import Image

from softedge.detection import voc
from softedge.detection.notices import compare_splits
from softedge.errors import UserError


def xml(objects) -> str:
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, difficult in objects
    )
    return f"<annotation><size><width>1</width><height>1</height></size>{entries}</annotation>"


def make(root, splits: dict[str, dict[str, object]], pictures=True):
    """splits: split -> {image name: list of (class, 1-based box, difficult) or raw text}"""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images) + "\n")
        for name, objects in images.items():
            Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{name}.jpg")
            text = objects if isinstance(objects, str) else xml(objects)
            (root / "Annotations" / f"{name}.xml").write_text(text)
    return root


def test_boxes_become_corner_coordinates_and_names_become_sorted_classes(tmp_path):
    root = make(tmp_path, {"train": {"a": [("dog", (1, 1, 40, 30), 0), ("7", (5, 6, 10, 12), 1)]}, "val": {"b": []}})
    train, test = voc.read(root)
    assert train.classes == test.classes == ("7", "dog")
    (scene,) = train.scenes
    assert scene.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 10, 12]]
    assert scene.labels.tolist() == [1, 0] and scene.difficult.tolist() == [False, True]
    assert (scene.width, scene.height) == (40, 30)  # of the picture, not of the wrong xml
    assert len(test) == 1 and len(test.scenes[0].boxes) == 0


def test_voc_2007_and_2012_side_by_side_are_the_07_12_protocol(tmp_path):
    box = [("dog", (1, 1, 20, 20), 0)]
    make(tmp_path / "VOCdevkit/VOC2007", {"trainval": {"a": box}, "test": {"b": box, "c": box}})
    make(tmp_path / "VOCdevkit/VOC2012", {"trainval": {"d": box}, "train": {"d": box}})
    train, test = voc.read(tmp_path)
    assert sorted(s.path.stem for s in train.scenes) == ["a", "d"]
    assert sorted(s.path.stem for s in test.scenes) == ["b", "c"]
    assert [s.id for s in train.scenes] == [1, 2]


def test_boxes_outside_or_without_area_are_noticed_clipped_and_not_learnt(tmp_path):
    boxes = [("a", (-4, 3, 80, 20), 0), ("a", (10, 10, 9, 20), 0), ("a", (50, 5, 60, 9), 0), ("a", (3, 3, 9, 9), 0)]
    train, _ = voc.read(make(tmp_path, {"train": {"x": boxes}, "val": {"y": boxes[:1]}}))
    clipped, keep = train.scenes[0].trainable()
    assert keep.tolist() == [0, 3] and clipped[0].tolist() == [0, 2, 40, 20]
    assert len(train.scenes[0].boxes) == 4  # evaluation counts them all, as the official tools do
    assert any("outside" in line for line in train.notices) and any("pixel or less" in line for line in train.notices)


def test_boxes_counted_from_zero_are_corners_and_the_devkits_are_pixels(tmp_path):
    """An object that fills the picture of 40 x 30: corners from 0 are 0 0 40 30, the devkit writes 1 1 40 30."""
    for name, first in (("zero", 0), ("one", 1)):
        boxes = [("a", (first, first, 40, 30), 0), ("a", (first + 3, first + 5, 10, 12), 0)]
        train, test = voc.read(make(tmp_path / name, {"train": {"x": boxes}, "val": {"y": boxes[1:]}}))
        assert train.scenes[0].boxes.tolist() == [[0, 0, 40, 30], [3, 5, 10, 12]]
        assert train.scenes[0].area.tolist() == [1200, 49]
        assert test.scenes[0].boxes.tolist() == [[3, 5, 10, 12]]  # the whole data set tells
        assert any("counted from 0" in line for line in train.notices) == (first == 0)
        assert not any("outside" in line for line in train.notices)


def test_one_box_at_zero_among_more_at_one_is_a_slip(tmp_path):
    boxes = [("a", (1, 1, 20, 20), 0), ("a", (0, 3, 9, 9), 0)]
    train, _ = voc.read(make(tmp_path, {"train": {"x": boxes}, "val": {"y": boxes[:1]}}))
    assert train.scenes[0].boxes.tolist() == [[0, 0, 20, 20], [-1, 2, 9, 9]]
    assert any("outside" in line for line in train.notices)


def test_missing_and_damaged_files_are_left_out_with_one_line_each_kind(tmp_path):
    box = [("a", (1, 1, 20, 20), 0)]
    root = make(tmp_path, {"train": dict.fromkeys(("ok", "gone", "broken", "bare", "torn"), box), "val": {"v": box}})
    (root / "JPEGImages/gone.jpg").unlink()
    (root / "JPEGImages/broken.jpg").write_bytes(b"not an image")
    (root / "Annotations/bare.xml").unlink()
    (root / "Annotations/torn.xml").write_text("<annotation><object>")
    train, _ = voc.read(root)
    assert [s.path.stem for s in train.scenes] == ["ok"]
    assert len(train.notices) == 5  # the size in these annotations is not the picture's, either
    assert all(any(name in line for line in train.notices) for name in ("gone", "broken", "bare", "torn"))


def test_an_object_without_a_box_is_left_out(tmp_path):
    text = "<annotation><object><name>a</name></object></annotation>"
    train, _ = voc.read(make(tmp_path, {"train": {"x": text}, "val": {"y": [("a", (1, 1, 9, 9), 0)]}}))
    assert len(train.scenes[0].boxes) == 0 and "without a name or a box" in train.notices[0]
    lines = compare_splits(train, train)
    assert lines == []


@pytest.mark.parametrize("value", ["nan", "inf", "1e30", "x", ""])
def test_a_coordinate_that_is_no_number_leaves_the_object_out(tmp_path, value):
    good, bad = ("a", (1, 1, 9, 9), 0), ("a", (1, 1, value, 9), 0)
    train, _ = voc.read(make(tmp_path, {"train": {"x": [good, bad]}, "val": {"y": [good]}}))
    assert train.scenes[0].boxes.tolist() == [[0, 0, 9, 9]] and "without a name or a box" in train.notices[0]


def test_a_list_that_is_no_text_is_one_clear_line(tmp_path):
    box = [("a", (1, 1, 9, 9), 0)]
    root = make(tmp_path, {"train": {"x": box}, "val": {"y": box}})
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a list of image names"):
        voc.read(root)


def test_an_image_that_is_listed_twice_is_used_once(tmp_path):
    box = [("a", (1, 1, 9, 9), 0)]
    root = make(tmp_path, {"train": {"x": box}, "val": {"y": box}})
    (root / "ImageSets/Main/train.txt").write_text("x\nx\n")
    train, _ = voc.read(root)
    assert len(train) == 1 and "listed twice" in train.notices[0]


@pytest.mark.parametrize("lists", [True, False])
def test_of_two_pictures_of_one_name_the_one_that_the_annotation_names_is_used(tmp_path, lists):
    box = [("a", (1, 1, 9, 9), 0)]
    named = xml(box).replace("<size>", "<filename>C:\\photos\\X.PNG</filename><size>")
    root = make(tmp_path, {"train": {"x": named, "y": box, "z": box}, "val": {"v": box}})
    for name in ("x", "y"):
        Image.new("RGB", (40, 30), "red").save(root / "JPEGImages" / f"{name}.png")
    if not lists:
        shutil.rmtree(root / "ImageSets")
    train, test = voc.read(root)
    names = {scene.path.name for scene in (*train.scenes, *test.scenes)}
    assert names == {"x.png", "y.jpg", "z.jpg", "v.jpg"}
    line = "1 annotation could be of several pictures and does not say which: the first is used (y.jpg or y.png)"
    assert any(line in notice for notice in train.notices)


@pytest.mark.parametrize("pair", [("0", "00"), ("traffic light", "traffic_light"), ("T-Shirt", "t shirt")])
def test_classes_that_differ_in_spaces_or_zeros_are_refused(tmp_path, pair):
    splits = {s: {s: [(name, (1, 1, 9, 9), 0)]} for s, name in zip(("train", "val"), pair)}
    with pytest.raises(UserError, match=f"{pair[0]!r} and {pair[1]!r}, one name in two spellings"):
        voc.read(make(tmp_path, splits))


def test_one_class_in_two_spellings_is_refused(tmp_path):
    accents = "cafe\u0301", "caf\u00e9"
    splits = {s: {s: [(name, (1, 1, 9, 9), 0)]} for s, name in zip(("train", "val"), accents)}
    with pytest.raises(UserError, match="one name in two spellings"):
        voc.read(make(tmp_path, splits))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_an_annotation_is_not_waited_for(tmp_path):
    splits = {s: {f"{s}{i}": [("a", (1, 1, 9, 9), 0)] for i in range(2)} for s in ("train", "val")}
    root = make(tmp_path, splits)
    path = root / "Annotations" / "train0.xml"
    path.unlink()
    os.mkfifo(path)
    train, _ = voc.read(root)
    assert len(train) == 1 and any("not a regular file" in line for line in train.notices)


def test_a_class_in_test_only_is_told(tmp_path):
    splits = {"train": {"x": [("a", (1, 1, 9, 9), 0)]}, "val": {"y": [("b", (1, 1, 9, 9), 0)]}}
    train, test = voc.read(make(tmp_path, splits))
    lines = compare_splits(train, test)
    assert lines[0].startswith("no training object of b") and lines[1].startswith("no test object of a")


@pytest.mark.parametrize(
    ("breakage", "line"),
    [
        (lambda root: (root / "ImageSets/Main/train.txt").unlink(), "ImageSets/Main"),
        (lambda root: [p.unlink() for p in (root / "JPEGImages").iterdir()], "no usable training image"),
        (
            lambda root: [p.write_text(xml([])) for p in (root / "Annotations").iterdir()],
            "no annotation holds a single object",
        ),
        (lambda root: (root / "Annotations").rename(root / "Labels"), "not in Pascal VOC format"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(tmp_path, breakage, line):
    root = make(tmp_path / "d", {"train": {"x": [("a", (1, 1, 9, 9), 0)]}, "val": {"y": []}})
    breakage(root)
    with pytest.raises(UserError, match=line) as error:
        voc.read(root)
    assert "\n" not in str(error.value)


BOXES = [("a", (1, 1, 9, 9), 0)]


def labelimg(root, n: int, pictures: str = "images", annotations: str = "annotations"):
    """Pictures and annotations side by side, as LabelImg leaves them."""
    for number in range(n):
        for folder in (pictures, annotations):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(root / pictures / f"{number}.png")
        (root / annotations / f"{number}.xml").write_text(xml(BOXES))
    return root


@pytest.mark.parametrize("folders", [("images", "annotations"), ("JPEGImages", "Annotations"), ("", "")])
def test_a_folder_without_splits_holds_a_fifth_out_by_content(tmp_path, folders):
    pictures, annotations = folders
    root = labelimg(tmp_path, 40, pictures, annotations)
    train, test = voc.read(root)
    names = [{scene.path.name for scene in split.scenes} for split in (train, test)]
    assert len(names[0] | names[1]) == 40 and not names[0] & names[1] and 2 <= len(names[1]) <= 16
    assert "no splits" in train.notices[0]
    held = next(iter(names[1]))
    (root / pictures / "copy.png").write_bytes((root / pictures / held).read_bytes())
    (root / annotations / "copy.xml").write_text(xml(BOXES))
    _, again = voc.read(root)
    assert {scene.path.name for scene in again.scenes} == names[1] | {"copy.png"}  # a copy goes where the picture is


def test_roboflows_folders_are_its_splits(tmp_path):
    for split, n in (("train", 3), ("valid", 2), ("test", 1)):
        labelimg(tmp_path / split, n, "", "")
    train, test = voc.read(tmp_path)
    assert (len(train), len(test)) == (3, 1) and "valid/ is used neither" in test.notices[0]


@pytest.mark.parametrize("line", ["x.jpg", "JPEGImages/x.jpg", "VOC\\JPEGImages\\x.jpg", "x.xml", "x 1", "x  -1", "x"])
def test_lists_may_have_endings_folders_and_flags(tmp_path, line):
    root = make(tmp_path, {"train": {"x": BOXES}, "val": {"y": BOXES}})
    (root / "ImageSets/Main/train.txt").write_text(f"{line}\n")
    train, _ = voc.read(root)
    assert [scene.path.name for scene in train.scenes] == ["x.jpg"]


def test_names_with_spaces_and_dots_are_whole_names(tmp_path):
    root = make(tmp_path, {"train": {"my photo": BOXES, "a.b": BOXES}, "val": {"y": BOXES}})
    train, _ = voc.read(root)
    assert [scene.path.name for scene in train.scenes] == ["my photo.jpg", "a.b.jpg"]


def test_xml_with_a_namespace_is_read(tmp_path):
    root = make(tmp_path, {"train": {"x": BOXES}, "val": {"y": BOXES}})
    path = root / "Annotations/x.xml"
    path.write_text(path.read_text().replace("<annotation>", '<annotation xmlns="http://example.org/voc">'))
    train, _ = voc.read(root)
    assert train.scenes[0].boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize("encoding", ["gbk", "GB2312", "big5", "shift_jis", "utf-8", "utf-16", "windows-1252"])
def test_xml_in_a_declared_encoding_is_read(tmp_path, encoding):
    name = "é" if encoding == "windows-1252" else "犬"
    root = make(tmp_path, {"train": {"x": BOXES}, "val": {"y": BOXES}})
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{xml([(name, (1, 1, 9, 9), 0)])}'
    (root / "Annotations/x.xml").write_bytes(text.encode(encoding))
    train, _ = voc.read(root)
    assert name in train.classes and train.scenes[0].boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (xml([("狗", (1, 1, 9, 9), 0)]).encode("gbk"), "is not XML"),
        (
            b'<?xml version="1.0" encoding="utf-8"?>' + xml([("狗", (1, 1, 9, 9), 0)]).encode("gbk"),
            "is not text in utf-8",
        ),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding"),
        (b"", "is not XML"),
        (b"\x00\x01\x02", "is not XML"),
    ],
)
def test_xml_that_cannot_be_read_is_left_out_with_a_line(tmp_path, data, reason):
    root = make(tmp_path, {"train": {"x": BOXES, "z": BOXES}, "val": {"y": BOXES}})
    (root / "Annotations/x.xml").write_bytes(data)
    train, _ = voc.read(root)
    assert [scene.path.stem for scene in train.scenes] == ["z"]
    assert reason in train.notices[0] and "x.xml" in train.notices[0] and "\n" not in train.notices[0]
