"""COCO folders (Lin et al. 2014): annotations/instances_*.json beside a folder of images for each split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from softedge.detection import coco_entries
from softedge.detection.coco_entries import Key
from softedge.detection.notices import Notices
from softedge.detection.scenes import Scene, Scenes, Segmentation
from softedge.errors import UserError
from softedge.run import read_json

Object = tuple[Mapping[str, Any], Segmentation]


def read(folder: str | Path) -> tuple[Scenes, Scenes]:
    """The training and the test split of a COCO folder: instances_*train*.json and instances_*val*.json (or test).

    Images are looked for in a folder named like the split (``train2017``), in ``images/`` and beside. What the official
    tools ignore (objects of unknown images or categories) is ignored with a notice; ambiguous ids are a UserError.
    """
    folder = Path(folder)
    train, test = _annotations(folder, ("train",)), _annotations(folder, ("val", "test"))
    values = [_content(path) for path in (train, test)]
    categories = coco_entries.categories([v["categories"] for v in values], folder)
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


def _split(folder: Path, path: Path, values: dict[str, Any], categories: dict[Key, str]) -> Scenes:
    notices = Notices(path.name)
    images = coco_entries.images(path, values["images"], notices)
    index = {key: number for number, key in enumerate(categories)}
    objects: dict[Key, list[Object]] = {key: [] for key in images}
    seen: set[str] = set()
    for annotation in values["annotations"]:
        problem = coco_entries.problem(annotation, images, index)
        mask: Segmentation = None
        if not problem:
            image_id: Any = coco_entries.key(annotation["image_id"])
            image = images[image_id]
            mask, problem = coco_entries.segmentation(annotation, int(image["height"]), int(image["width"]), notices)
            problem = problem and f"{problem}: the objects are ignored, as by Detectron2"
        identity = str(annotation.get("id") if isinstance(annotation, dict) else annotation)[:60]
        if problem:
            notices.add(problem, f"object {identity}")
            continue
        if identity in seen:
            notices.add("objects share an id with another: counted as objects of their own", f"id {identity}")
        seen.add(identity)
        objects[image_id].append((annotation, mask))
    places = [
        folder / path.stem.split("_")[-1],
        folder / "images" / path.stem.split("_")[-1],
        folder / "images",
        folder,
    ]
    scenes: list[Scene] = []
    numbered = all(isinstance(key, int) for key in images)  # the official tools break ties in the order of the ids
    for key, image in images.items():
        picture = next((p for p in (place / image["file_name"] for place in places) if p.is_file()), None)
        if picture is None:
            notices.add("images are not there and are left out", image["file_name"])
            continue
        number = key if isinstance(key, int) and numbered else len(scenes) + 1
        scenes.append(_scene(number, picture, image, objects[key], index, notices))
    if not scenes:
        raise UserError(f"none of the {len(images)} images of {path} is below {places[0]} or {places[2]}")
    learnable = [m for s in scenes for m, crowd in zip(s.masks, s.crowd) if not crowd]
    masks = bool(learnable) and all(m is not None for m in learnable)
    if not masks and (without := sum(m is None for m in learnable)) < len(learnable):
        notices.add("kinds of annotation are mixed: only boxes are used", f"{without} of {len(learnable)} without mask")
    return Scenes(tuple(categories.values()), tuple(scenes), notices.lines(), masks)


def _scene(
    number: int,
    picture: Path,
    image: Mapping[str, Any],
    found: list[Object],
    index: Mapping[Key, int],
    notices: Notices,
) -> Scene:
    objects = [annotation for annotation, _ in found]
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
        id=number,
        path=picture,
        width=width,
        height=height,
        boxes=boxes,
        labels=np.array([index[coco_entries.key(a["category_id"])] for a in objects], np.int64),  # type: ignore[index]
        area=np.array([_area(a, s) for a, s in zip(objects, sides)], np.float32),
        crowd=np.array([coco_entries.crowd(a) for a in objects], bool),
        difficult=np.zeros(len(objects), bool),
        masks=tuple(mask for _, mask in found),
    )


def _area(annotation: Mapping[str, Any], sides: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Of the mask, as the file has it; of the box where it has none. Sizes of objects are told apart by it."""
    area = annotation.get("area")
    return float(area if isinstance(area, int | float) and math.isfinite(area) else sides.prod())
