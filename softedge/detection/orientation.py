"""Boxes and masks on photos that Exif turns: annotation tools differ in whether they turn the photo before one draws.

Which it was is seen from the size that the annotation gives, where the turn exchanges width and height.  Where it does
not (a half turn, a mirror image, a square photo), the other photos of the data set decide, because one tool has drawn
them all; without any, the photo is taken as it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softedge.detection.masks import decode, encode
from softedge.detection.notices import Notices
from softedge.detection.scenes import Scene, Segmentation

Frame = Literal["stored", "upright"]
_UPRIGHT = 1


@dataclass(frozen=True)
class Drawn:
    """A scene as its annotation has it, not turned yet.

    scene: its width and height are those of the upright photo, unless ``annotated`` fits neither way.
    stored: width and height in the file.  orientation: Exif's, 1 to 8.  annotated: the size that the annotation says.
    """

    scene: Scene
    stored: tuple[int, int]
    orientation: int
    annotated: tuple[int, int] | None


def size_upright(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height after the turn that Exif asks for."""
    return (stored[1], stored[0]) if orientation >= 5 else stored


def upright(splits: Sequence[Sequence[Drawn]], notices: Sequence[Notices]) -> list[list[Scene]]:
    """The scenes of each split with boxes and masks in pixels of the upright photo."""
    votes = Counter(frame for split in splits for drawn in split if (frame := _frame(drawn)) is not None)
    usual: Frame = "upright" if votes["upright"] > votes["stored"] else "stored"
    return [[_turned(drawn, usual, bool(votes), note) for drawn in split] for split, note in zip(splits, notices)]


def _frame(drawn: Drawn) -> Frame | None:
    """What the annotation's size says about one photo; None where it says nothing."""
    after = size_upright(drawn.stored, drawn.orientation)
    if drawn.orientation == _UPRIGHT or after == drawn.stored or drawn.annotated not in (drawn.stored, after):
        return None
    return "stored" if drawn.annotated == drawn.stored else "upright"


def _turned(drawn: Drawn, usual: Frame, voted: bool, notices: Notices) -> Scene:
    fitting = (drawn.stored, size_upright(drawn.stored, drawn.orientation))
    used = (drawn.scene.width, drawn.scene.height) == fitting[1]  # else it is left out and named when it is screened
    if used and drawn.annotated is not None and all(drawn.annotated) and drawn.annotated not in fitting:
        (width, height), (real_width, real_height) = drawn.annotated, drawn.stored
        notices.add(
            "pictures have another size than their annotations say: boxes are taken as pixels of the picture; if the "
            "pictures were resized, resize the boxes, too",
            f"{drawn.scene.path.name}: {real_width} x {real_height}, not {width} x {height}",
        )
    if drawn.orientation == _UPRIGHT:
        return drawn.scene
    frame = _frame(drawn)
    if frame is None:
        frame = usual
        if not voted and len(drawn.scene.boxes):
            notices.add(
                "photos are turned by Exif and nothing says whether the boxes are, too: taken as drawn on the photo as "
                "it is stored; if they are misplaced, save the photos upright",
                drawn.scene.path.name,
            )
    if frame == "upright":
        return drawn.scene
    notices.add("photos are turned by Exif, their boxes were not: turned with them", drawn.scene.path.name)
    boxes = turn_points(drawn.scene.boxes.reshape(-1, 2, 2), drawn.stored, drawn.orientation)
    return replace(
        drawn.scene,
        boxes=np.concatenate([boxes.min(1), boxes.max(1)], 1).astype(np.float32),
        masks=tuple(_turn_mask(mask, drawn.stored, drawn.orientation) for mask in drawn.scene.masks),
    )


def turn_points(points: NDArray[Any], stored: tuple[int, int], orientation: int) -> NDArray[Any]:
    """(..., 2) x and y in the stored photo of a width and height -> in the upright one."""
    x, y = points[..., 0], points[..., 1]
    far_x, far_y = stored[0] - x, stored[1] - y
    turned = {
        1: (x, y),
        2: (far_x, y),
        3: (far_x, far_y),
        4: (x, far_y),
        5: (y, x),
        6: (far_y, x),
        7: (far_y, far_x),
        8: (y, far_x),
    }[orientation]
    return np.stack(turned, -1)


def turn_pixels(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) as stored -> upright."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _turn_mask(mask: Segmentation, stored: tuple[int, int], orientation: int) -> Segmentation:
    if mask is None:
        return None
    if isinstance(mask, dict):
        return encode(turn_pixels(decode(mask, stored[1], stored[0]), orientation))
    return [turn_points(np.reshape(polygon, (-1, 2)), stored, orientation).reshape(-1).tolist() for polygon in mask]
