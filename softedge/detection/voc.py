"""Pascal VOC folders (Everingham et al. 2010): JPEGImages/, Annotations/*.xml, ImageSets/Main/*.txt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np

from softedge.detection.notices import Notices
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError

_LARGEST = 1e7  # pixels; beyond it a coordinate is damage
_PICTURES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp")


def read(folder: str | Path) -> tuple[Scenes, Scenes]:
    """The training and the test split of a VOC folder, or of a folder that holds several (VOC2007, VOC2012).

    With a test.txt anywhere (VOC 2007): train on every trainval.txt (or train and val), test on test.txt, which is the
    07+12 protocol.  Without: train on train.txt, test on val.txt.  An image or annotation that is missing or damaged is
    left out with a notice; UserError when nothing is left.
    """
    roots = _roots(Path(folder))
    names = {root: {p.stem for p in (root / "ImageSets" / "Main").glob("*.txt")} for root in roots}
    if any("test" in found for found in names.values()):
        wanted = [(root, "trainval" if "trainval" in names[root] else "train+val") for root in roots]
        tested = [(root, "test") for root in roots if "test" in names[root]]
    else:
        wanted, tested = [(root, "train") for root in roots], [(root, "val") for root in roots]
    train, test = Notices(f"{folder} (train)"), Notices(f"{folder} (test)")
    train_scenes = [found for root, split in wanted for found in _split(root, split, train)]
    test_scenes = [found for root, split in tested for found in _split(root, split, test)]
    for what, scenes in (("training", train_scenes), ("test", test_scenes)):
        if not scenes:
            raise UserError(f"{folder} has no usable {what} image; ImageSets/Main lists {_listed(names)}")
    classes = tuple(sorted({name for _, labels in (*train_scenes, *test_scenes) for name in labels}))
    if not classes:
        raise UserError(f"{folder}: no annotation holds a single object; check the <object> entries in Annotations/")
    return _labelled(classes, train_scenes, train), _labelled(classes, test_scenes, test)


def _roots(folder: Path) -> list[Path]:
    for base in (folder, folder / "VOCdevkit"):
        if (base / "Annotations").is_dir():
            return [base]
        if found := sorted(p.parent for p in base.glob("*/Annotations") if p.is_dir()):
            return found
    raise UserError(
        f"{folder} is not in Pascal VOC format: expected Annotations/, JPEGImages/ and ImageSets/Main/ in it, "
        "or in folders like VOC2007/ below it"
    )


def _listed(names: dict[Path, set[str]]) -> str:
    return ", ".join(sorted({f"{name}.txt" for found in names.values() for name in found})) or "nothing"


def _split(root: Path, split: str, notices: Notices) -> list[tuple[Scene, list[str]]]:
    """The images of a split with the class name of every object."""
    lists = [root / "ImageSets" / "Main" / f"{part}.txt" for part in split.split("+")]
    if missing := [str(path) for path in lists if not path.is_file()]:
        raise UserError(f"{missing[0]} is not there; a VOC folder lists the images of each split in ImageSets/Main")
    listed = [line.split()[0] for path in lists for line in _lines(path) if line.strip()]
    if len(set(listed)) < len(listed):
        notices.add("images listed twice, used once", f"{split}.txt")
    scenes = []
    for name in dict.fromkeys(listed):
        picture = next((p for p in (root / "JPEGImages" / f"{name}{s}" for s in _PICTURES) if p.is_file()), None)
        if picture is None:
            notices.add("listed images are not in JPEGImages/ and are left out", name)
            continue
        scene = _scene(picture, root / "Annotations" / f"{name}.xml", notices)
        if scene is not None:
            scenes.append(scene)
    return scenes


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of image names ({error})") from error


def _scene(picture: Path, path: Path, notices: Notices) -> tuple[Scene, list[str]] | None:
    try:
        tree = ET.parse(path).getroot()
    except FileNotFoundError:
        notices.add("images have no annotation and are left out", path.stem)
        return None
    except ET.ParseError as error:
        notices.add(f"annotations cannot be read and their images are left out: {error}", path.name)
        return None
    size = _size(picture)
    if size is None:
        notices.add("images cannot be read and are left out", picture.name)
        return None
    boxes, labels, difficult = [], [], []
    for element in tree.iter("object"):
        name = (element.findtext("name") or "").strip()
        box = _box(element.find("bndbox"))
        if not name or box is None:
            notices.add("objects without a name or a box are left out", path.name)
            continue
        boxes.append(box)
        labels.append(name)
        difficult.append((element.findtext("difficult") or "0").strip() == "1")
    width, height = size
    array = np.array(boxes, np.float32).reshape(-1, 4)
    sides = np.maximum(array[:, 2:] - array[:, :2], 0)
    _note_boxes(array, width, height, path.name, notices)
    empty = np.zeros(len(boxes), np.int64)
    scene = Scene(
        id=0,
        path=picture,
        width=width,
        height=height,
        boxes=array,
        labels=empty,
        area=sides.prod(1).astype(np.float32),
        crowd=empty.astype(bool),
        difficult=np.array(difficult, bool),
    )
    return scene, labels


def _box(element: ET.Element | None) -> tuple[float, float, float, float] | None:
    """1-based inclusive pixels to corner coordinates: (xmin - 1, ymin - 1, xmax, ymax), as in Detectron2."""
    if element is None:
        return None
    try:
        x1, y1, x2, y2 = (float(element.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    if not all(abs(value) < _LARGEST for value in (x1, y1, x2, y2)):  # not a number, infinite or damaged
        return None
    return x1 - 1, y1 - 1, x2, y2


def _note_boxes(boxes: np.ndarray, width: int, height: int, name: str, notices: Notices) -> None:
    for x1, y1, x2, y2 in boxes:
        if x2 - x1 <= 1 or y2 - y1 <= 1:
            notices.add("boxes are a pixel or less wide: not learnt when empty, counted as missed", name)
        elif x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            notices.add("boxes reach outside of the image: clipped for training", name)


def _size(picture: Path) -> tuple[int, int] | None:
    """Of the upright image (the sizes in annotation files are often wrong); None when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except OSError:
        return None


def _labelled(classes: tuple[str, ...], found: list[tuple[Scene, list[str]]], notices: Notices) -> Scenes:
    index = {name: i for i, name in enumerate(classes)}
    scenes = tuple(
        replace(scene, id=number, labels=np.array([index[name] for name in labels], np.int64))
        for number, (scene, labels) in enumerate(found, start=1)
    )
    return Scenes(classes, scenes, notices.lines())
