"""VOC and COCO folders after public bug reports of other projects; a test's id is the report's thread.

What was tried, and what of it failed here at first: ``benchmarks/results/reported-inputs.md``.
"""

from __future__ import annotations

import json

import pytest
from PIL import Image
from test_coco import image, make, thing
from test_voc import make as make_voc
from test_voc import xml

from softedge.detection import coco, voc

GOOD = ("dog", (1, 1, 20, 20), 0)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((6, 5, 5, 20), id="sovit-123/fasterrcnn-pytorch-training-pipeline#28"),
        pytest.param((20, 5, 5, 20), id="jwyang/faster-rcnn.pytorch#132"),
        pytest.param((20, 20, 5, 5), id="tensorflow/models#8595"),
        pytest.param((60, 40, 80, 50), id="PaddlePaddle/PaddleDetection#2991"),
        pytest.param((0, 0, 0, 0), id="endernewton/tf-faster-rcnn#386"),
    ],
)
def test_a_box_without_area_in_the_picture_is_not_learnt_and_told(tmp_path, box):
    train, _ = voc.read(make_voc(tmp_path, {"train": {"x": [GOOD, ("dog", box, 0)]}, "val": {"y": [GOOD]}}))
    boxes, kept = train.scenes[0].trainable()
    assert kept.tolist() == [0] and boxes.tolist() == [[0, 0, 20, 20]] and train.notices


def test_a_box_of_one_pixel_has_an_area(tmp_path):
    """sovit-123/fasterrcnn-pytorch-training-pipeline#44: VOC counts the last pixel in, so xmin = xmax has an area."""
    train, _ = voc.read(make_voc(tmp_path, {"train": {"x": [("dog", (5, 5, 5, 20), 0)]}, "val": {"y": [GOOD]}}))
    assert train.scenes[0].trainable()[0].tolist() == [[4, 4, 5, 20]]


def test_a_box_that_reaches_over_the_edge_is_clipped_and_told(tmp_path):
    """sovit-123/fasterrcnn-pytorch-training-pipeline#77"""
    train, _ = voc.read(make_voc(tmp_path, {"train": {"x": [("dog", (30, 20, 47, 33), 0)]}, "val": {"y": [GOOD]}}))
    assert train.scenes[0].trainable()[0].tolist() == [[29, 19, 40, 30]]
    assert any("outside" in line for line in train.notices)


def test_corners_are_read_by_their_names_not_their_order(tmp_path):
    """HumanSignal/labelImg#34"""
    text = xml([GOOD]).replace(
        "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax>",
        "<ymax>20</ymax><xmax>30</xmax><ymin>3</ymin><xmin>5</xmin>",
    )
    train, _ = voc.read(make_voc(tmp_path, {"train": {"x": text}, "val": {"y": [GOOD]}}))
    assert train.scenes[0].boxes.tolist() == [[4, 2, 30, 20]]


def test_a_picture_without_objects_is_no_error(tmp_path):
    """tensorflow/models#1881"""
    train, test = voc.read(make_voc(tmp_path, {"train": {"x": [GOOD], "empty": []}, "val": {"y": [GOOD]}}))
    assert sum(len(scene.boxes) for scene in train.scenes) == 1 and len(test) == 1


def test_what_a_mac_leaves_beside_annotations_is_passed_over(tmp_path):
    """sekilab/RoadDamageDetector#8: ._x.xml holds no XML."""
    root = make_voc(tmp_path, {"train": {"x": [GOOD]}, "val": {"y": [GOOD]}})
    for name in ("x", "y"):
        (root / "Annotations" / f"._{name}.xml").write_bytes(b"Mac OS X        \x00\xb0\x00\x00ATTR")
        (root / "JPEGImages" / f"._{name}.jpg").write_bytes(b"\x00\x05\x16\x07")
    train, test = voc.read(root)
    assert [s.path.name for s in (*train.scenes, *test.scenes)] == ["x.jpg", "y.jpg"]


def test_chinese_in_a_file_that_declares_its_encoding_is_read(tmp_path):
    """kahst/BirdCLEF2017#2"""
    root = make_voc(tmp_path, {"train": {"x": [GOOD]}, "val": {"y": [GOOD]}})
    text = '<?xml version="1.0" encoding="utf-8"?><!-- 鸟 -->' + xml([("鸟", (1, 1, 9, 9), 0)])
    (root / "Annotations" / "x.xml").write_bytes(text.encode())
    assert voc.read(root)[0].classes[-1] == "鸟"


def test_bytes_that_are_not_what_a_file_declares_are_left_out_with_its_name(tmp_path):
    """roboflow/supervision#2585: "café" in one byte where XML reads UTF-8."""
    root = make_voc(tmp_path, {"train": {"x": [GOOD], "z": [GOOD]}, "val": {"y": [GOOD]}})
    (root / "Annotations" / "x.xml").write_bytes(xml([("café", (1, 1, 9, 9), 0)]).encode("latin-1"))
    train, _ = voc.read(root)
    assert [s.path.stem for s in train.scenes] == ["z"] and any("x" in line for line in train.notices)


# COCO


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((29.65, 8.33, 1.03, 0.0), id="cocodataset/cocoapi#355"),
        pytest.param((9.98, 18.56, 0.0, 5.54), id="visionml/pytracking#18"),
        pytest.param((0, 0, 0, 0), id="open-mmlab/mmdetection#5525"),
        pytest.param((30, 20, -10, -5), id="obss/sahi#417"),
        pytest.param((100, 100, 5, 5), id="bubbliiiing/mask-rcnn-keras#29"),
    ],
)
def test_an_object_without_area_is_not_learnt(tmp_path, box):
    train, _ = coco.read(make(tmp_path, [image(1)], [thing(1), thing(2, box=box)]))
    assert train.scenes[0].trainable()[1].tolist() == [0] and train.notices


def files(root, train: list[dict], val: list[dict], objects: tuple[int, int], name: str = "1.jpg"):
    """A folder whose two files list their own categories; in each one object of the category given."""
    make(root, [image(1, name)], [thing(1)])
    Image.new("RGB", (40, 30), "red").save(root / "val2017" / name)
    for split, categories, category in (("train2017", train, objects[0]), ("val2017", val, objects[1])):
        values = {"images": [image(1, name)], "annotations": [thing(1, category=category)], "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))
    return root


CAT, DOG, COW = ({"id": number, "name": name} for number, name in ((1, "cat"), (2, "dog"), (3, "cow")))


@pytest.mark.parametrize(
    ("train", "val", "objects"),
    [
        pytest.param([CAT, DOG, COW], [DOG, CAT, COW], (2, 2), id="facebookresearch/maskrcnn-benchmark#970"),
        pytest.param(
            [CAT, DOG],
            [{"id": 11, "name": "cat"}, {"id": 12, "name": "dog"}],
            (2, 12),
            id="open-mmlab/mmdetection#2361",
        ),
        pytest.param([{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], [CAT, DOG], (1, 2), id="obss/sahi#273"),
        pytest.param(
            [CAT, {"id": 90, "name": "dog"}], [CAT, {"id": 90, "name": "dog"}], (90, 90), id="cocodataset/cocoapi#143"
        ),
        pytest.param([{"id": 0, "name": "dog"}], [{"id": 0, "name": "dog"}], (0, 0), id="cocodataset/cocoapi#546"),
    ],
)
def test_classes_are_the_same_in_both_files_however_they_are_numbered(tmp_path, train, val, objects):
    one, two = coco.read(files(tmp_path, train, val, objects))
    assert one.classes == two.classes and len(one.classes) == len(train)
    assert [one.classes[s.labels[0]] for s in (one.scenes[0], two.scenes[0])] == ["dog", "dog"]


def test_ids_of_objects_may_come_again_on_other_pictures(tmp_path):
    """facebookresearch/maskrcnn-benchmark#539"""
    train, _ = coco.read(make(tmp_path, [image(1), image(2)], [thing(1, on=1), thing(1, on=2)]))
    assert [len(scene.boxes) for scene in train.scenes] == [1, 1]


def test_area_and_crowd_may_be_missing(tmp_path):
    """NVIDIA/retinanet-examples#135"""
    bare = {key: value for key, value in thing(1).items() if key not in ("area", "iscrowd")}
    train, _ = coco.read(make(tmp_path, [image(1)], [bare]))
    assert train.scenes[0].trainable()[1].tolist() == [0]


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", ".\\\\a.jpg"])
def test_one_picture_under_two_ids_is_used_once_with_all_its_objects(tmp_path, again):
    """sartorius-research/LIVECell#26: else each half would be trained as what the other lacks."""
    images = [image(1, "a.jpg"), image(2, again)]
    train, _ = coco.read(make(tmp_path, images, [thing(1, on=1), thing(2, on=2), thing(3, on=2, box=(20, 10, 8, 8))]))
    (scene,) = train.scenes
    assert scene.boxes.tolist() == [[5, 5, 15, 15], [20, 10, 28, 18]]
    assert any("several ids" in line and "a.jpg" in line for line in train.notices)
