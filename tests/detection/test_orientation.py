"""Boxes and masks on photos that Exif turns: what was drawn lies on the object after the turn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pictures import turned
from PIL import Image

from softedge.detection import coco, masks, pictures, voc
from softedge.detection.orientation import turn_pixels

BOX = (6, 4, 30, 16)  # x1 y1 x2 y2 in the photo as stored: no symmetry hides a wrong turn
STORED = (64, 40)


def photo(path, orientation: int, size=STORED, box=BOX):
    """A red box on black, stored as it is and marked to be turned."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[box[1] : box[3], box[0] : box[2], 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {"lossless": path.suffix == ".webp"}
    Image.fromarray(array).save(path, exif=exif, **exact)


def upright_box(orientation: int) -> tuple[int, int, int, int]:
    """Where the box is after the turn, read off a bitmap turned by Pillow."""
    bitmap = Image.new("L", STORED)
    bitmap.paste(255, BOX)
    return turned(bitmap, orientation).getbbox()


def red(scene) -> list[int]:
    """The bounds of what is red in the picture that a detector is trained on."""
    rows, columns = np.nonzero(pictures.pixels(scene)[:, :, 0] > 128)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def voc_folder(root, photos: dict[str, tuple[int, tuple[int, int], tuple[int, int, int, int]]], ending="jpg"):
    """photos: name -> (orientation, width and height in the annotation, box in it)."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(photos))
    for name, (orientation, (width, height), (x1, y1, x2, y2)) in photos.items():
        photo(root / f"JPEGImages/{name}.{ending}", orientation)
        box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation>{size}<object><name>a</name><bndbox>{box}</bndbox></object></annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)
    return root


@pytest.mark.parametrize("orientation", range(1, 9))
def test_voc_boxes_drawn_on_the_photo_as_stored_turn_with_it(tmp_path, orientation):
    train, _ = voc.read(voc_folder(tmp_path / "voc", {"x": (orientation, STORED, BOX)}))
    (scene,) = train.scenes
    assert scene.boxes.tolist() == [list(upright_box(orientation))] == [red(scene)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_voc_boxes_drawn_on_the_upright_photo_stay(tmp_path, orientation):
    box = upright_box(orientation)
    train, _ = voc.read(voc_folder(tmp_path / "voc", {"x": (orientation, STORED[::-1], box)}))
    (scene,) = train.scenes
    assert scene.boxes.tolist() == [list(box)] == [red(scene)]
    assert train.notices == ()


@pytest.mark.parametrize("drawn", ["stored", "upright"])
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_lie_on_the_object_in_every_format_that_has_an_orientation(tmp_path, orientation, ending, drawn):
    photos = {"x": (orientation, STORED, BOX), "side": (6, STORED, BOX)}
    if drawn == "upright":
        size = STORED[::-1] if orientation > 4 else STORED
        photos = {"x": (orientation, size, upright_box(orientation)), "side": (6, STORED[::-1], upright_box(6))}
    train, _ = voc.read(voc_folder(tmp_path / "voc", photos, ending))
    assert [scene.boxes[0].tolist() for scene in train.scenes] == [red(scene) for scene in train.scenes]


def test_a_half_turn_follows_the_other_photos_of_the_data_set(tmp_path):
    upright = {name: (n, STORED[::-1] if n > 4 else STORED, upright_box(n)) for name, n in (("half", 3), ("side", 6))}
    train, _ = voc.read(voc_folder(tmp_path / "upright", upright))
    assert [scene.boxes[0].tolist() for scene in train.scenes] == [red(scene) for scene in train.scenes]
    stored = {"half": (3, STORED, BOX), "side": (6, STORED, BOX)}
    train, _ = voc.read(voc_folder(tmp_path / "stored", stored))
    assert [scene.boxes[0].tolist() for scene in train.scenes] == [red(scene) for scene in train.scenes]
    assert not any("nothing says" in line for line in train.notices)
    train, _ = voc.read(voc_folder(tmp_path / "alone", {"half": stored["half"]}))
    assert any("nothing says whether the boxes are" in line for line in train.notices)


def coco_folder(root, orientation: int, size: tuple[int, int], box, segmentation):
    x1, y1, x2, y2 = box
    (root / "annotations").mkdir(parents=True)
    image = {"id": 1, "file_name": "x.jpg", "width": size[0], "height": size[1]}
    thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
    values = {"images": [image], "annotations": [{**thing, "segmentation": segmentation}]}
    for split in ("train", "val"):
        (root / split).mkdir()
        photo(root / split / "x.jpg", orientation)
        text = json.dumps({**values, "categories": [{"id": 1, "name": "a"}]})
        (root / f"annotations/instances_{split}.json").write_text(text)
    return root


@pytest.mark.parametrize("kind", ["polygon", "code"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_boxes_and_masks_turn_with_the_photo(tmp_path, orientation, kind):
    x1, y1, x2, y2 = BOX
    bitmap = np.zeros(STORED[::-1], np.uint8)
    bitmap[y1:y2, x1:x2] = 1
    code = masks.encode(bitmap)
    code = {
        "size": code["size"],
        "counts": code["counts"].decode() if isinstance(code["counts"], bytes) else code["counts"],
    }
    segmentation = [[x1, y1, x2, y1, x2, y2, x1, y2]] if kind == "polygon" else code
    train, _ = coco.read(coco_folder(tmp_path, orientation, STORED, BOX, segmentation))
    (scene,) = train.scenes
    assert scene.boxes.tolist() == [list(upright_box(orientation))] == [red(scene)]
    rows, columns = np.nonzero(masks.decode(scene.masks[0], scene.height, scene.width))
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == red(scene)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_turn_as_pillow_turns_them(orientation):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(array)
    image.getexif()[0x0112] = orientation
    from PIL import ImageOps

    assert (turn_pixels(array, orientation) == np.asarray(ImageOps.exif_transpose(image))).all()
