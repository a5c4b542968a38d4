"""COCO folders (Lin et al. 2014): annotations/instances_*.json beside a folder of images for each split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softedge.data.objects import Notices, Scene, Scenes, Segmentation
from softedge.errors import UserError
from softedge.run import read_json


def read(folder: str | Path) -> tuple[Scenes, Scenes]:
    """The training and the test split of a COCO folder: instances_*train*.json and instances_*val*.json (or test).

    Images are looked for in a folder named like the split (``train2017``), in ``images/`` and beside. What the official
    tools ignore (objects of unknown images or categories) is ignored with a notice; ambiguous ids are a UserError.
    """
    folder = Path(folder)
    train, test = _annotations(folder, ("train",)), _annotations(folder, ("val", "test"))
    values = [_content(path) for path in (train, test)]
    categories = _categories([v["categories"] for v in values], folder)
    return _split(folder, train, values[0], categories), _split(folder, test, values[1], categories)


def _annotations(folder: Path, kinds: tuple[str, ...]) -> Path:
    found = sorted(folder.glob("annotations/*.json")) + sorted(folder.glob("*.json"))
    instances = [p for p in found if "instances" in p.name] or found
    for kind in kinds:
        if matching := [p for p in instances if kind in p.stem]:
            if len(matching) > 1:
                names = ", ".join(p.name for p in matching)
                raise UserError(f"{folder} has several {kind} annotations ({names}); keep the one to use")
            return matching[0]
    listed = ", ".join(p.name for p in found) or "no .json file"
    raise UserError(f"{folder} is not in COCO format: expected annotations/instances_{kinds[0]}*.json, found {listed}")


def _content(path: Path) -> dict[str, Any]:
    values = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(key), list):
            raise UserError(f"{path} has no list '{key}': not a COCO instances file")
    return values


def _categories(lists: list[list[Mapping[str, Any]]], folder: Path) -> dict[int, str]:
    """Category id -> name, of both splits; names may be missing or numbers."""
    names: dict[int, str] = {}
    for categories in lists:
        for category in categories:
            key, name = int(category["id"]), str(category.get("name", category["id"]))
            if names.setdefault(key, name) != name:
                raise UserError(f"{folder}: category {key} is both '{names[key]}' and '{name}'; ids must be unique")
    if not names:
        raise UserError(f"{folder}: the annotations list no category")
    return dict(sorted(names.items()))


def _split(folder: Path, path: Path, values: dict[str, Any], categories: dict[int, str]) -> Scenes:
    notices = Notices(path.name)
    images = _images(path, values["images"], notices)
    index = {key: number for number, key in enumerate(categories)}
    objects: dict[int, list[Mapping[str, Any]]] = {key: [] for key in images}
    seen: set[Any] = set()
    for annotation in values["annotations"]:
        problem = _problem(annotation, images, index)
        if problem:
            notices.add(problem, f"object {annotation.get('id')}")
            continue
        if annotation.get("id") in seen:
            notices.add("objects share an id with another: counted as objects of their own", f"id {annotation['id']}")
        seen.add(annotation.get("id"))
        objects[annotation["image_id"]].append(annotation)
    places = [
        folder / path.stem.split("_")[-1],
        folder / "images" / path.stem.split("_")[-1],
        folder / "images",
        folder,
    ]
    scenes = []
    for key, image in images.items():
        picture = next((p for p in (place / image["file_name"] for place in places) if p.is_file()), None)
        if picture is None:
            notices.add("images are not there and are left out", image["file_name"])
            continue
        scenes.append(_scene(key, picture, image, objects[key], index, notices))
    if not scenes:
        raise UserError(f"none of the {len(images)} images of {path} is below {places[0]} or {places[2]}")
    learnable = [m for s in scenes for m, crowd in zip(s.masks, s.crowd) if not crowd]
    masks = bool(learnable) and all(m is not None for m in learnable)
    if not masks and (without := sum(m is None for m in learnable)) < len(learnable):
        notices.add("kinds of annotation are mixed: only boxes are used", f"{without} of {len(learnable)} without mask")
    return Scenes(tuple(categories.values()), tuple(scenes), notices.lines(), masks)


def _images(path: Path, listed: list[Mapping[str, Any]], notices: Notices) -> dict[int, Mapping[str, Any]]:
    images: dict[int, Mapping[str, Any]] = {}
    for image in listed:
        if not {"id", "file_name", "width", "height"} <= image.keys():
            raise UserError(f"{path}: an image lacks id, file_name, width or height: {str(dict(image))[:120]}")
        other = images.setdefault(image["id"], image)
        if other is image:
            continue
        if other["file_name"] != image["file_name"]:
            raise UserError(
                f"{path}: image id {image['id']} stands for {other['file_name']} and {image['file_name']}; "
                "ids must be unique"
            )
        notices.add("images are listed twice, used once", image["file_name"])
    return images


def _problem(annotation: Mapping[str, Any], images: Mapping[int, Any], index: Mapping[int, int]) -> str:
    """Why an object is ignored, or an empty string."""
    if annotation.get("image_id") not in images:
        return "objects are on an image that is not listed: ignored, as by the official tools"
    if annotation.get("category_id") not in index:
        return "objects are of a category that is not listed: ignored, as by the official tools"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return "objects have no box of four numbers: ignored"
    return ""


def _scene(
    key: int,
    picture: Path,
    image: Mapping[str, Any],
    objects: list[Mapping[str, Any]],
    index: Mapping[int, int],
    notices: Notices,
) -> Scene:
    boxes = np.array([a["bbox"] for a in objects], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    width, height = int(image["width"]), int(image["height"])
    for (x1, y1, x2, y2), annotation in zip(boxes, objects):
        if x2 <= x1 or y2 <= y1:
            notices.add("boxes have no area: not learnt, counted as missed", f"object {annotation.get('id')}")
        elif x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
            notices.add("boxes reach outside of the image: clipped for training", f"object {annotation.get('id')}")
    return Scene(
        id=key,
        path=picture,
        width=width,
        height=height,
        boxes=boxes,
        labels=np.array([index[a["category_id"]] for a in objects], np.int64),
        area=np.array([a.get("area", s.prod()) for a, s in zip(objects, sides)], np.float32),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in objects], bool),
        difficult=np.zeros(len(objects), bool),
        masks=tuple(_segmentation(a, notices) for a in objects),
    )


def _segmentation(annotation: Mapping[str, Any], notices: Notices) -> Segmentation:
    """Polygons with at least three corners, or a run-length code; None when there is neither."""
    value = annotation.get("segmentation")
    if isinstance(value, dict) and "counts" in value and "size" in value:
        return value
    if not isinstance(value, list) or not value:
        return None
    polygons = [p for p in value if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
    if len(polygons) < len(value):
        notices.add(
            "masks have polygons of less than three corners: those are ignored", f"object {annotation.get('id')}"
        )
    return polygons or None


def to_rle(mask: Segmentation, height: int, width: int) -> dict[str, Any]:
    """Any COCO segmentation as one compressed run-length code."""
    from faster_coco_eval import mask as codec

    if isinstance(mask, dict):
        return codec.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
    if not mask:
        return codec.encode(np.zeros((height, width), np.uint8, order="F"))
    return codec.merge(codec.frPyObjects(mask, height, width))


def to_bitmap(mask: Segmentation, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (height, width), 1 inside."""
    from faster_coco_eval import mask as codec

    return np.asarray(codec.decode(to_rle(mask, height, width)), np.uint8)
