"""COCO folders (Lin et al. 2014) as scenes; see ``coco_layout.py`` for folders, ``coco_entries.py`` for entries."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge.detection import coco_boxes, coco_entries, coco_layout
from softedge.detection.coco_entries import Key
from softedge.detection.coco_layout import Split
from softedge.detection.notices import Notices, look_at_boxes
from softedge.detection.orientation import Drawn, size_upright, upright
from softedge.detection.pictures import header
from softedge.detection.scenes import Scene, Scenes, Segmentation, refuse_two_spellings
from softedge.errors import UserError
from softedge.progress import plural
from softedge.run import read_json

Object = tuple[Mapping[str, Any], Segmentation]


def read(folder: str | Path) -> tuple[Scenes, Scenes]:
    """The training and the test split of a COCO folder.

    Categories are matched by name: the two files may number them differently.  What the official tools ignore (objects
    of unknown images or categories) is ignored with a notice; ambiguous ids and names are a UserError.
    """
    folder = Path(folder)
    late = Notices(folder.name)
    splits = coco_layout.find(folder, late)
    values = [_content(split.annotations) for split in splits]
    names = [
        coco_entries.categories(
            coco_entries.without_heading(content["categories"], content["annotations"]), split.annotations
        )
        for content, split in zip(values, splits)
    ]
    classes = tuple(dict.fromkeys(name for named in names for name in named.values()))
    refuse_two_spellings(folder, classes)
    notices = [Notices(_shown(folder, split)) for split in splits]
    drawn = [
        _drawn(split, content, {key: classes.index(name) for key, name in named.items()}, note)
        for split, content, named, note in zip(splits, values, names, notices)
    ]
    train, test = (_scenes(classes, scenes, note) for scenes, note in zip(upright(drawn, notices), notices))
    return train, replace(test, notices=(*test.notices, *late.lines()))


def _shown(folder: Path, split: Split) -> str:
    """The annotation file's name, with its folder where all have the same."""
    path = split.annotations
    return path.name if path.parent in (folder, folder / "annotations") else f"{path.parent.name}/{path.name}"


def _content(path: Path) -> dict[str, Any]:
    values = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(key), list):
            raise UserError(f"{path} has no list '{key}': not a COCO instances file")
    return values


def _drawn(split: Split, values: dict[str, Any], index: Mapping[Key, int], notices: Notices) -> list[Drawn]:
    path = split.annotations
    images = coco_entries.images(path, values["images"], notices)
    objects = _objects(values["annotations"], images, index, notices)
    coco_boxes.compare(path, (thing for things in objects.values() for thing in things), notices)
    objects = _of_files(images, objects, notices)
    drawn: list[Drawn] = []
    numbered = all(isinstance(key, int) for key in images)  # the official tools break ties in the order of the ids
    for key in objects:
        image = images[key]
        picture = split.picture(image["file_name"])
        if picture is None:
            notices.add("images are not there and are left out", image["file_name"])
            continue
        number = key if isinstance(key, int) and numbered else len(drawn) + 1
        drawn.append(_scene(number, picture, image, objects[key], index))
    if not drawn:
        where = ", ".join(str(place) for place in split.places[:3])
        raise UserError(f"none of the {len(images)} images of {path} is below {where}")
    return drawn


def _of_files(
    images: Mapping[Key, Mapping[str, Any]], objects: Mapping[Key, list[Object]], notices: Notices
) -> dict[Key, list[Object]]:
    """``objects`` of each file once: a file under several ids has the objects of all, equal ones once."""
    first: dict[str, Key] = {}
    merged: dict[Key, list[Object]] = {}
    for key, image in images.items():
        name = posixpath.normpath(str(image["file_name"]).replace("\\", "/"))  # ./a.jpg is a.jpg
        if first.setdefault(name, key) == key:
            merged[key] = list(objects[key])
            continue
        notices.add("images are listed under several ids: used once, with the objects of all", name)
        known = [(a["bbox"], a["category_id"]) for a, _ in merged[first[name]]]
        merged[first[name]] += [o for o in objects[key] if (o[0]["bbox"], o[0]["category_id"]) not in known]
    return merged


def _objects(
    annotations: list[Any], images: Mapping[Key, Mapping[str, Any]], index: Mapping[Key, int], notices: Notices
) -> dict[Key, list[Object]]:
    """Image id -> its objects that can be used, with their masks."""
    objects: dict[Key, list[Object]] = {key: [] for key in images}
    seen: set[str] = set()
    for annotation in annotations:
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
    return objects


def _scenes(classes: tuple[str, ...], scenes: list[Scene], notices: Notices) -> Scenes:
    look_at_boxes(scenes, notices)
    for scene in scenes:
        _note_boxes(scene, notices)
    learnable = [m for s in scenes for m, crowd in zip(s.masks, s.crowd) if not crowd]
    masks = bool(learnable) and all(m is not None for m in learnable)
    if not masks and (without := sum(m is None for m in learnable)) < len(learnable):
        notices.note(f"{without} of {plural(len(learnable), 'object')} have no mask: only boxes are used")
    return Scenes(classes, tuple(scenes), notices.lines(), masks)


def _note_boxes(scene: Scene, notices: Notices) -> None:
    for x1, y1, x2, y2 in scene.boxes:
        if x2 <= x1 or y2 <= y1:
            notices.add("boxes have no area: not learnt, counted as missed", scene.path.name)
        elif x1 < -1 or y1 < -1 or x2 > scene.width + 1 or y2 > scene.height + 1:
            notices.add("boxes reach outside of the image: clipped for training", scene.path.name)


def _scene(
    number: int, picture: Path, image: Mapping[str, Any], things: list[Object], index: Mapping[Key, int]
) -> Drawn:
    objects = [annotation for annotation, _ in things]
    boxes = np.array([a["bbox"] for a in objects], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    annotated = int(image["width"]), int(image["height"])
    stored, orientation = header(picture) or (annotated, 1)  # what cannot be read is left out when it is screened
    after = size_upright(stored, orientation)
    width, height = after if annotated == stored else annotated
    scene = Scene(
        id=number,
        path=picture,
        width=width,
        height=height,
        boxes=boxes,
        labels=np.array([index[coco_entries.key(a["category_id"])] for a in objects], np.int64),  # type: ignore[index]
        area=np.array([_area(a, s) for a, s in zip(objects, sides)], np.float32),
        crowd=np.array([coco_entries.crowd(a) for a in objects], bool),
        difficult=np.zeros(len(objects), bool),
        masks=tuple(mask for _, mask in things),
    )
    return Drawn(scene, stored, orientation, annotated)


def _area(annotation: Mapping[str, Any], sides: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Of the mask, as given in the file, else of the box. Decides which objects count as small, medium or large."""
    area = annotation.get("area")
    return float(area if isinstance(area, int | float) and math.isfinite(area) else sides.prod())
