"""Single entries of a COCO file, checked: what cannot be meant is refused or named, never a traceback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softedge.data.decoding import MAX_PIXELS
from softedge.detection.notices import Notices
from softedge.detection.scenes import Segmentation
from softedge.errors import UserError

Key = int | str
_LARGEST = 1e7  # pixels; beyond it a coordinate is damage


def key(value: Any) -> Key | None:
    """An id, whether written as a number, as a number in quotes, or as a name; None when it is none of these."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return int(value) if isinstance(value, str) and value.isdigit() else value


def number(value: Any) -> bool:
    """A finite number of a believable size."""
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < _LARGEST


def images(path: Path, listed: list[Any], notices: Notices) -> dict[Key, Mapping[str, Any]]:
    """Image id -> entry; UserError for an entry that names no file or size, and for an id of two files."""
    entries: dict[Key, Mapping[str, Any]] = {}
    for entry in listed:
        if not isinstance(entry, dict) or not {"id", "file_name", "width", "height"} <= entry.keys():
            raise UserError(f"{path}: an image lacks id, file_name, width or height: {str(entry)[:120]}")
        identity, sides = key(entry["id"]), (entry["width"], entry["height"])
        if identity is None or not isinstance(entry["file_name"], str) or not all(number(s) and s > 0 for s in sides):
            raise UserError(f"{path}: an image's id, file_name, width or height makes no sense: {str(entry)[:120]}")
        if sides[0] * sides[1] > MAX_PIXELS:
            size = f"{sides[0]} x {sides[1]}"
            raise UserError(f"{path}: {entry['file_name']} has {size} pixels, the limit is {MAX_PIXELS:,}")
        other = entries.setdefault(identity, entry)
        if other is entry:
            continue
        if other["file_name"] != entry["file_name"]:
            raise UserError(
                f"{path}: image id {identity} stands for {other['file_name']} and {entry['file_name']}; "
                "ids must be unique"
            )
        notices.add("images are listed twice, used once", entry["file_name"])
    return entries


def categories(listed: list[Any], path: Path) -> dict[Key, str]:
    """Category id -> name in the order of the ids; names may be missing or numbers.

    UserError for an id with two names and for a name with two ids: what such a detector finds could not be scored.
    """
    names: dict[Key, str] = {}
    for entry in listed:
        identity = key(entry.get("id")) if isinstance(entry, dict) else None
        if identity is None:
            raise UserError(f"{path}: a category has no id that is a number or a name: {str(entry)[:120]}")
        name = str(entry.get("name", identity)).strip()
        if names.setdefault(identity, name) != name:
            raise UserError(f"{path}: category {identity} is both '{names[identity]}' and '{name}'; ids must be unique")
    if not names:
        raise UserError(f"{path}: the annotations list no category")
    names = dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))
    ids: dict[str, Key] = {}
    for identity, name in names.items():
        if (other := ids.setdefault(name, identity)) != identity:
            raise UserError(
                f"{path}: two categories, {other} and {identity}, are named '{name}'; give each a name of its own, or "
                "use one id for both"
            )
    return names


def without_heading(listed: list[Any], annotations: list[Any]) -> list[Any]:
    """The categories without the one that Roboflow puts above all others, named like the project; it has no objects."""
    entries = [entry for entry in listed if isinstance(entry, dict)]
    above = {str(entry.get("supercategory")) for entry in entries}
    headings = [e for e in entries if e.get("supercategory") == "none" and str(e.get("name")) in above]
    if not headings or len(headings) == len(listed):
        return listed
    used = {key(thing.get("category_id")) for thing in annotations if isinstance(thing, dict)}
    return [entry for entry in listed if entry not in headings or key(entry.get("id")) in used]


def problem(entry: Any, known: Mapping[Key, Any], index: Mapping[Key, int]) -> str:
    """Why an object is ignored, or an empty string."""
    if not isinstance(entry, dict):
        return "objects are not key-value entries: ignored"
    if key(entry.get("image_id")) not in known:
        return "objects are on an image that is not listed: ignored, as by the official tools"
    if key(entry.get("category_id")) not in index:
        return "objects are of a category that is not listed: ignored, as by the official tools"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(number(v) for v in box):
        return "objects have no box of four numbers: ignored"
    return ""


def crowd(entry: Mapping[str, Any]) -> bool:
    """``iscrowd`` as a number or in quotes; missing: not a crowd."""
    return key(entry.get("iscrowd")) == 1 or entry.get("iscrowd") is True


def segmentation(entry: Mapping[str, Any], height: int, width: int, notices: Notices) -> tuple[Segmentation, str]:
    """(polygons with at least three corners or a run-length code; None without one, and what is wrong with it)."""
    value = entry.get("segmentation")
    if not value:
        return None, ""
    if isinstance(value, dict):
        return (value, "") if _decodes(value, height, width) else (None, "masks do not decode to their image's size")
    if not isinstance(value, list):
        return None, "masks are neither polygons nor run-length codes"
    polygons = [p for p in value if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(number, p))]
    if not polygons:
        return None, "masks have no polygon of three corners"
    if len(polygons) < len(value):
        notices.add("masks have polygons of less than three corners: those are ignored", f"object {entry.get('id')}")
    return polygons, ""


def _decodes(value: Mapping[str, Any], height: int, width: int) -> bool:
    from faster_coco_eval import mask as codec

    counts = value.get("counts")
    if value.get("size") != [height, width] or not isinstance(counts, list | str):
        return False
    if isinstance(counts, list):
        return all(isinstance(c, int) and c >= 0 for c in counts) and sum(counts) == height * width
    try:
        return tuple(codec.decode(value).shape) == (height, width)
    except (ValueError, RuntimeError):  # what the codec raises for damaged strings
        return False
