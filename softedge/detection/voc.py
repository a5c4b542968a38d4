"""Pascal VOC folders (Everingham et al. 2010) as scenes; folders: ``voc_layout.py``, files: ``voc_xml.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from softedge.detection import voc_layout, voc_xml
from softedge.detection.notices import Notices, look_at_boxes
from softedge.detection.orientation import Drawn, size_upright, upright
from softedge.detection.pictures import header
from softedge.detection.scenes import Scene, Scenes, refuse_two_spellings
from softedge.detection.voc_layout import Entry
from softedge.errors import UserError


def read(folder: str | Path) -> tuple[Scenes, Scenes]:
    """The training and the test split of a VOC folder, or of a folder that holds several (VOC2007, VOC2012).

    An image or annotation that is missing or damaged is left out with a notice; UserError when nothing is left.
    """
    name = Path(folder).name
    notices = Notices(f"{name} (train)"), Notices(f"{name} (test)")
    entries = voc_layout.find(Path(folder), *notices)
    names: list[list[list[str]]] = []
    drawn: list[list[Drawn]] = []
    for what, split, note in zip(("training", "test"), entries, notices):
        known = [pair for entry in split if (pair := _drawn(entry, note)) is not None]
        if not known:
            first = f"; the first problem: {note.lines()[-1]}" if note.lines() else ""
            raise UserError(f"{folder} has no usable {what} image{first}")
        drawn.append([one for one, _ in known])
        names.append([labels for _, labels in known])
    if _from_zero(drawn):
        drawn = [[_shifted(one) for one in split] for split in drawn]
        notices[0].note(
            "boxes begin at pixel 0, so they are taken as corners counted from 0, not as pixels counted from 1, as the "
            "VOC devkit has them"
        )
    classes = tuple(sorted({name for split in names for labels in split for name in labels}))
    if not classes:
        raise UserError(f"{folder}: no annotation holds a single object; check the <object> entries in Annotations/")
    refuse_two_spellings(folder, classes)
    train, test = (
        _labelled(classes, scenes, labels, note)
        for scenes, labels, note in zip(upright(drawn, notices), names, notices)
    )
    return train, test


def _drawn(entry: Entry, notices: Notices) -> tuple[Drawn, list[str]] | None:
    """The scene of one picture with the class name of every object; None where it is left out."""
    try:
        annotation = voc_xml.read(entry.annotation)
    except FileNotFoundError:
        notices.add("images have no annotation and are left out", entry.picture.name)
        return None
    except voc_xml.BadAnnotation as error:
        notices.add(f"annotations cannot be read and their images are left out: {error}", entry.annotation.name)
        return None
    head = header(entry.picture)
    if head is None:
        notices.add("images cannot be read and are left out", entry.picture.name)
        return None
    if annotation.unusable:
        notices.add("annotations have objects without a name or a box: left out", entry.annotation.name)
    stored, orientation = head
    width, height = size_upright(stored, orientation)
    boxes = np.array([thing.box for thing in annotation.objects], np.float32).reshape(-1, 4)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    nothing = np.zeros(len(boxes), np.int64)
    scene = Scene(
        id=0,
        path=entry.picture,
        width=width,  # of the picture: the sizes in annotation files are often wrong
        height=height,
        boxes=boxes,
        labels=nothing,
        area=sides.prod(1).astype(np.float32),
        crowd=nothing.astype(bool),
        difficult=np.array([thing.difficult for thing in annotation.objects], bool),
    )
    return Drawn(scene, stored, orientation, annotation.size), [thing.name for thing in annotation.objects]


def _from_zero(drawn: Sequence[Sequence[Drawn]]) -> bool:
    """Whether the boxes of a data set are counted from 0: objects at its left and top edges tell.

    ``voc_xml`` has taken them as counted from 1, where such an object begins at 1 and becomes 0; counted from 0 it has
    become -1.
    """
    corners = np.concatenate([one.scene.boxes[:, :2].ravel() for split in drawn for one in split])
    return bool((corners == -1).sum() > (corners == 0).sum())


def _shifted(drawn: Drawn) -> Drawn:
    boxes = drawn.scene.boxes + np.array([1, 1, 0, 0], np.float32)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return replace(drawn, scene=replace(drawn.scene, boxes=boxes, area=sides.prod(1)))


def _labelled(
    classes: tuple[str, ...], scenes: Sequence[Scene], names: Sequence[Sequence[str]], notices: Notices
) -> Scenes:
    look_at_boxes(scenes, notices)
    index = {name: i for i, name in enumerate(classes)}
    labelled = []
    for number, (scene, labels) in enumerate(zip(scenes, names), start=1):
        _note_boxes(scene, notices)
        labelled.append(replace(scene, id=number, labels=np.array([index[name] for name in labels], np.int64)))
    return Scenes(classes, tuple(labelled), notices.lines())


def _note_boxes(scene: Scene, notices: Notices) -> None:
    for x1, y1, x2, y2 in scene.boxes:
        if x2 - x1 <= 1 or y2 - y1 <= 1:
            notices.add("boxes are a pixel or less wide: not learnt when empty, counted as missed", scene.path.name)
        elif x1 < 0 or y1 < 0 or x2 > scene.width or y2 > scene.height:
            notices.add("boxes reach outside of the image: clipped for training", scene.path.name)
