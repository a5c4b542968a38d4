"""COCO folders, good and bad."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from softedge.detection import coco
from softedge.detection.masks import decode
from softedge.detection.screening import screen
from softedge.errors import UserError


def image(number: int, name: str | None = None) -> dict:
    return {"id": number, "file_name": name or f"{number}.jpg", "width": 40, "height": 30}


def thing(number: int, on: int = 1, category: int = 18, box=(5, 5, 10, 10), **more) -> dict:
    x, y, w, h = box
    square = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    common = {"id": number, "image_id": on, "category_id": category, "bbox": list(box), "area": w * h, "iscrowd": 0}
    return {**common, "segmentation": square, **more}


DOG = {"id": 18, "name": "dog"}


def make(root, images, annotations, categories=(DOG, {"id": 90, "name": "brush"})):
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        for item in images:
            Image.new("RGB", (40, 30)).save(root / split / item["file_name"])
        values = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))
    return root


def test_boxes_and_categories_are_read_in_the_order_of_their_ids(tmp_path):
    crowd = {"size": [30, 40], "counts": [0, 300, 900]}
    annotations = [thing(1), thing(2, category=90, box=(0, 0, 4, 8), iscrowd=1, segmentation=crowd)]
    train, test = coco.read(make(tmp_path, [image(1), image(2)], annotations))
    assert train.classes == ("dog", "brush") and train.masks
    scene = train.scenes[0]
    assert scene.boxes.tolist() == [[5, 5, 15, 15], [0, 0, 4, 8]] and scene.labels.tolist() == [0, 1]
    assert scene.crowd.tolist() == [False, True] and scene.trainable()[1].tolist() == [0]
    assert decode(scene.masks[0], 30, 40)[5:15, 5:15].all()
    assert len(test) == 2 and len(test.scenes[1].boxes) == 0  # an image without objects stays in the test split


def test_one_box_of_two_classes_is_told(tmp_path):
    train, _ = coco.read(make(tmp_path, [image(1), image(2)], [thing(1), thing(2, category=90), thing(3, on=2)]))
    assert "1 picture gives one box to several classes" in " ".join(train.notices) and "(1.jpg)" in train.notices[0]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (lambda x, y, w, h: (x, y, x + w, y + h), "left, top, right, bottom"),
        (lambda x, y, w, h: (x + w / 2, y + h / 2, w, h), "centre, width, height"),
        (lambda x, y, w, h: (y, x, h, w), "top, left, height, width"),
    ],
)
def test_boxes_that_contradict_their_masks_are_refused_with_what_they_are(tmp_path, written, name):
    boxes = [(5, 9, 10, 10), (2, 6, 12, 8), (14, 6, 9, 11)]
    things = [thing(n, box=box) | {"bbox": list(written(*box))} for n, box in enumerate(boxes)]
    with pytest.raises(UserError, match=f"the boxes of 3 of 3 objects are {name}, as their masks or areas show"):
        coco.read(make(tmp_path / "a", [image(1)], things))
    things[0]["bbox"] = list(boxes[0])  # one that is right: the others are nobody's mistake of a program
    (line,) = coco.read(make(tmp_path / "b", [image(1)], things))[0].notices
    assert "2 boxes are not those around their masks: both are used as they are (object 1, object 2)" in line


def test_boxes_that_contradict_their_areas_are_refused_where_there_is_no_mask(tmp_path):
    corners = [
        thing(1, segmentation=[]) | {"bbox": [5, 5, 15, 15]},
        thing(2, segmentation=[]) | {"bbox": [5, 5, 15, 15]},
    ]
    with pytest.raises(UserError, match="of 2 of 2 objects are left, top, right, bottom"):
        coco.read(make(tmp_path / "a", [image(1)], corners))
    of_masks = [thing(1, segmentation=[], area=61.5)]  # the area of a mask that was left out
    assert len(coco.read(make(tmp_path / "b", [image(1)], of_masks))[0].scenes[0].boxes) == 1


def test_names_with_backslashes_and_a_byte_order_mark_are_read(tmp_path):
    root = make(tmp_path, [image(1)], [thing(1)])
    path = root / "annotations/instances_train2017.json"
    path.write_text(path.read_text().replace('"1.jpg"', json.dumps("train2017\\1.jpg")), encoding="utf-8-sig")
    assert [scene.path for scene in coco.read(root)[0].scenes] == [root / "train2017/1.jpg"]


def test_annotations_of_a_test_split_beside_those_that_are_used_are_told(tmp_path):
    root = make(tmp_path, [image(1)], [thing(1)])
    path = root / "annotations/instances_val2017.json"
    path.with_name("instances_test2017.json").write_text(path.read_text())
    assert (
        "instances_test2017.json is not used: instances_val2017.json is the test split"
        in coco.read(root)[1].notices[-1]
    )


def test_what_the_official_tools_ignore_is_ignored_with_a_line(tmp_path):
    annotations = [thing(1), thing(2, on=99), thing(3, category=5), thing(4, bbox=[1, 2]), thing(1, box=(0, 0, 3, 3))]
    train, _ = coco.read(make(tmp_path, [image(1)], annotations))
    assert len(train.scenes[0].boxes) == 2
    text = "\n".join(train.notices)
    for words in ("image that is not listed", "category that is not listed", "no box of four", "shares an id"):
        assert words in text


def test_odd_boxes_stay_for_evaluation_and_leave_training(tmp_path):
    annotations = [thing(1, box=(30, 20, 30, 30)), thing(2, box=(5, 5, 0, 9)), thing(3, box=(3, 3, 4, 4))]
    train, _ = coco.read(make(tmp_path, [image(1)], annotations))
    clipped, keep = train.scenes[0].trainable()
    assert keep.tolist() == [0, 2] and clipped[0].tolist() == [30, 20, 40, 30]
    assert len(train.notices) == 2


def test_missing_images_are_left_out_and_all_missing_is_an_error(tmp_path):
    root = make(tmp_path, [image(1), image(2)], [thing(1)])
    (root / "train2017/2.jpg").unlink()
    train, _ = coco.read(root)
    assert len(train) == 1 and "2.jpg" in train.notices[0]
    (root / "train2017/1.jpg").unlink()
    with pytest.raises(UserError, match="none of the 2 images"):
        coco.read(root)


def test_polygons_of_two_corners_are_ignored_and_masks_missing_for_some_turn_masks_off(tmp_path):
    two = thing(1, segmentation=[[1, 1, 5, 5], [5, 5, 15, 5, 15, 15]])
    train, _ = coco.read(make(tmp_path / "a", [image(1)], [two]))
    assert train.masks and len(train.scenes[0].masks[0]) == 1
    train, _ = coco.read(make(tmp_path / "b", [image(1)], [thing(1), thing(2, box=(1, 1, 5, 5), segmentation=[])]))
    assert not train.masks and "only boxes" in train.notices[0]


def test_an_image_id_for_two_files_is_an_error_and_for_the_same_file_a_notice(tmp_path):
    with pytest.raises(UserError, match="ids must be unique"):
        coco.read(make(tmp_path / "a", [image(1, "x.jpg"), image(1, "y.jpg")], [thing(1)]))
    train, _ = coco.read(make(tmp_path / "b", [image(1), image(1)], [thing(1)]))
    assert len(train) == 1 and "listed twice" in train.notices[0]


def test_categories_may_have_numbers_for_names_but_not_two_names(tmp_path):
    train, _ = coco.read(make(tmp_path / "a", [image(1)], [thing(1)], [{"id": 18}]))
    assert train.classes == ("18",)
    with pytest.raises(UserError, match="both 'dog' and 'cat'"):
        coco.read(make(tmp_path / "b", [image(1)], [thing(1)], [DOG, {"id": 18, "name": "cat"}]))


def test_another_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="not in COCO format: expected annotations/instances_train"):
        coco.read(tmp_path)
    (tmp_path / "instances_train.json").write_text("{}")
    (tmp_path / "instances_val.json").write_text("{}")
    with pytest.raises(UserError, match="no list 'images'"):
        coco.read(tmp_path)


def changed(root, change):
    """A folder whose annotations were changed by hand, both splits alike."""
    make(root, [image(1)], [thing(1), thing(2, box=(1, 1, 8, 8))])
    for path in (root / "annotations").glob("*.json"):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
    return root


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("dog", "not key-value entries"),
        ({**thing(9), "image_id": [1]}, "image that is not listed"),
        ({**thing(9), "category_id": [18]}, "category that is not listed"),
        ({**thing(9), "bbox": [float("nan"), 1, 2, 3]}, "no box of four numbers"),
        ({**thing(9), "bbox": [1, 1, float("inf"), 3]}, "no box of four numbers"),
        ({**thing(9), "bbox": [1, 1, 1e30, 3]}, "no box of four numbers"),
        (thing(9, segmentation={"size": [10, 10], "counts": [0, 100]}), "does not decode to its image's size"),
        (thing(9, segmentation={"size": [30, 40], "counts": [0, 5000]}), "does not decode to its image's size"),
        (thing(9, segmentation={"size": [30, 40], "counts": "zzz"}), "does not decode to its image's size"),
        (thing(9, segmentation={"size": None, "counts": 5}), "does not decode to its image's size"),
        (thing(9, segmentation=[["a"] * 6]), "no polygon of three corners"),
        (thing(9, segmentation=[[float("nan")] * 6]), "no polygon of three corners"),
        (thing(9, segmentation=[1, 1, 5, 1, 5, 5]), "no polygon of three corners"),
        (thing(9, segmentation="x"), "neither polygons nor run-length codes"),
    ],
)
def test_a_damaged_object_is_ignored_with_a_line_and_the_others_keep_their_masks(tmp_path, entry, line):
    train, _ = coco.read(changed(tmp_path, lambda values: values["annotations"].append(entry)))
    assert len(train.scenes[0].boxes) == 2 and train.masks
    assert line in train.notices[0] and "\n" not in train.notices[0]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda v: v["images"].append("x"), "lacks id, file_name"),
        (lambda v: v["images"][0].update(id=[1]), "makes no sense"),
        (lambda v: v["images"][0].update(width="forty"), "makes no sense"),
        (lambda v: v["images"][0].update(height=0), "makes no sense"),
        (lambda v: v["images"][0].update(file_name=5), "makes no sense"),
        (lambda v: v["categories"].append("dog"), "no id that is a number or a name"),
        (lambda v: v["categories"].append({"name": "cat"}), "no id that is a number or a name"),
        (lambda v: v["categories"].clear(), "list no category"),
        (lambda v: v.update(annotations=None), "no list 'annotations'"),
    ],
)
def test_an_image_or_category_that_means_nothing_is_one_clear_line(tmp_path, change, line):
    with pytest.raises(UserError, match=line) as error:
        coco.read(changed(tmp_path, change))
    assert "\n" not in str(error.value)


def test_ids_may_be_names_or_numbers_in_quotes(tmp_path):
    def rename(values):
        values["images"][0]["id"] = "first"
        values["categories"] = [{"id": "18", "name": "dog"}, {"id": "cat"}]
        for entry, category in zip(values["annotations"], (18, "cat")):
            entry.update(image_id="first", category_id=category)

    train, _ = coco.read(changed(tmp_path, rename))
    assert train.classes == ("dog", "cat") and train.scenes[0].labels.tolist() == [0, 1]


def test_what_an_object_lacks_is_taken_from_its_box(tmp_path):
    def strip(values):
        values["annotations"][0].update(area=None, iscrowd=None)
        values["annotations"][1].update(area="big", iscrowd="1")

    train, _ = coco.read(changed(tmp_path, strip))
    assert train.scenes[0].area.tolist() == [100, 64] and train.scenes[0].crowd.tolist() == [False, True]


def test_images_without_objects_or_with_crowds_only_are_left_out_of_training(tmp_path):
    from softedge.detection.batches import Batches

    crowd = thing(2, on=2, iscrowd=1, segmentation={"size": [30, 40], "counts": [0, 300, 900]})
    train, _ = coco.read(make(tmp_path, [image(1), image(2), image(3)], [thing(1), crowd, thing(3, category=90)]))
    batches = Batches(train, 1, 0, masks=True, crop=False, workers=0)
    assert len(train) == 3 and batches.n_scenes == 1
    ((_, (target,)),) = batches.from_iteration(0, 1)
    assert len(target["boxes"]) == len(target["masks"]) == 2


def test_a_category_without_objects_is_left_out_of_the_mean_as_by_the_official_tools(tmp_path):
    from softedge.detection.coco_ap import coco_ap
    from softedge.detection.detections import Detections
    from softedge.detection.notices import compare_splits

    train, test = coco.read(make(tmp_path, [image(1)], [thing(1)]))
    assert train.classes == ("dog", "brush") and compare_splits(train, test) == []
    scene = test.scenes[0]
    found = Detections(scene.boxes, np.ones(1, np.float32), scene.labels, ())
    assert coco_ap(test, [found], "bbox")["AP"] == pytest.approx(1.0)  # brush, which nobody can find, does not count


def test_categories_are_matched_by_name_where_the_files_number_them_differently(tmp_path):
    from softedge.detection.coco_ap import coco_ap
    from softedge.detection.detections import Detections

    root = make(tmp_path, [image(1)], [thing(1, category=1), thing(2, category=2, box=(20, 5, 12, 12))])
    numbers = {"train2017": {1: "dog", 2: "cat"}, "val2017": {11: "cat", 12: "dog"}}
    for split, names in numbers.items():
        path = root / f"annotations/instances_{split}.json"
        values = json.loads(path.read_text())
        ids = {name: number for number, name in names.items()}
        values["categories"] = [{"id": number, "name": name} for number, name in names.items()]
        for entry, name in zip(values["annotations"], ("dog", "cat")):
            entry["category_id"] = ids[name]
        path.write_text(json.dumps(values))
    train, test = coco.read(root)
    assert train.classes == test.classes == ("dog", "cat")
    assert train.scenes[0].labels.tolist() == test.scenes[0].labels.tolist() == [0, 1]
    scene = train.scenes[0]  # what a perfect detector says
    assert coco_ap(test, [Detections(scene.boxes, np.ones(2, np.float32), scene.labels)])["AP"] == pytest.approx(1)


def test_two_categories_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="two categories, 18 and 19, are named 'dog'"):
        coco.read(make(tmp_path, [image(1)], [thing(1)], [DOG, {"id": 19, "name": "dog"}]))


@pytest.mark.parametrize("other", ["Dog", "DOG"])
def test_one_category_in_two_spellings_is_refused(tmp_path, other):
    root = make(tmp_path, [image(1)], [thing(1)])
    path = root / "annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"dog"', f'"{other}"'))
    with pytest.raises(UserError, match=f"'dog' and '{other}', one name in two spellings"):
        coco.read(root)


def test_roboflows_folders_are_its_splits_and_its_heading_is_no_class(tmp_path):
    heading = {"id": 0, "name": "dog", "supercategory": "none"}
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / split / "1.jpg")
        categories = [heading, {**DOG, "supercategory": "dog"}]
        values = {"images": [image(1)], "annotations": [thing(1)], "categories": categories}
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(values))
    train, test = coco.read(tmp_path)
    assert train.classes == ("dog",) and train.scenes[0].path == tmp_path / "train/1.jpg"
    assert test.scenes[0].path == tmp_path / "test/1.jpg" and "valid/ is used neither" in test.notices[-1]
    (tmp_path / "test/_annotations.coco.json").unlink()
    assert coco.read(tmp_path)[1].scenes[0].path == tmp_path / "valid/1.jpg"


def test_a_size_that_no_picture_has_is_one_clear_line(tmp_path):
    root = changed(tmp_path, lambda v: v["images"][0].update(width=9_000_000, height=9_000_000))
    with pytest.raises(UserError, match="the limit is"):
        coco.read(root)


def test_boxes_in_fractions_of_the_sides_are_refused(tmp_path):
    with pytest.raises(UserError, match="between 0 and 1"):
        coco.read(
            make(tmp_path, [image(1), image(2)], [thing(1, box=(0.1, 0.2, 0.3, 0.3)), thing(2, on=2, box=(0, 0, 1, 1))])
        )


def test_pictures_resized_after_they_were_annotated_are_told(tmp_path):
    large = {**image(1), "width": 80, "height": 60}
    train, test = coco.read(make(tmp_path, [large, image(2)], [thing(1), thing(2, on=2)]))
    assert train.notices == ()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "val2017" / "2.jpg")  # no copy of the training picture
    left_out = screen(train, test, "coco")
    assert [scene.path.name for scene in left_out.apply(train, test)[0].scenes] == ["2.jpg"]
    line = next(line for line in left_out.notices if "(train)" in line)
    assert "1 picture cannot be used and is left out" in line
    assert "1.jpg: 40 x 30 pixels, its annotation says 80 x 60; boxes would be misplaced" in line


def test_an_object_listed_twice_is_told(tmp_path):
    root = make(tmp_path, [image(1), image(2)], [thing(1), thing(2), thing(3, on=2)])
    train, _ = coco.read(root)
    assert [len(scene.labels) for scene in train.scenes] == [2, 1]
    assert any("1 picture lists an object twice" in line and "1.jpg: 1 object" in line for line in train.notices)
