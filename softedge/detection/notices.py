"""What was odd about a data set and how it was handled, one line for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from softedge.detection.counting import counted
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError
from softedge.progress import plural, say

_SHOWN = 3


class Notices:
    """Collects oddities by kind and words each kind as one line."""

    def __init__(self, where: str):
        self.where = where
        self._items: dict[str, list[str]] = {}
        self._lines: list[str] = []

    def add(self, kind: str, what: str) -> None:
        """One more of a kind: "N <kind> (a, b and n more)"."""
        self._items.setdefault(kind, []).append(what)

    def note(self, line: str) -> None:
        """A line of its own."""
        self._lines.append(f"{self.where}: {line}")

    def lines(self) -> tuple[str, ...]:
        lines = (f"{self.where}: {counted(len(what), kind)} ({shortened(what)})" for kind, what in self._items.items())
        return (*self._lines, *lines)


def shortened(items: Sequence[str]) -> str:
    """The first few of many."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def look_at_boxes(scenes: Sequence[Scene], notices: Notices) -> None:
    """A notice where a picture lists an object twice, or gives its box to several classes; UserError when all boxes lie
    within the first pixel: they are fractions of the sides, as YOLO has them.
    """
    corners = [scene.boxes for scene in scenes if len(scene.boxes)]
    if corners and all(boxes.max() <= 1 for boxes in corners) and any(boxes.max() > 0 for boxes in corners):
        raise UserError(
            f"{notices.where}: all boxes lie between 0 and 1, as fractions of the sides do; pixels are needed: "
            "multiply them by width and height"
        )
    for scene in scenes:
        if count := scene.repeated():
            what = f"{scene.path.name}: {plural(count, 'object', 'objects')}"
            notices.add("pictures list an object twice: both count, as in the official tools", what)
        if scene.ambiguous():
            notices.add("pictures give one box to several classes: all of them are learnt", scene.path.name)


def compare_splits(train: Scenes, test: Scenes) -> list[str]:
    """Lines on classes that a detector cannot learn or that cannot be measured."""
    learnt, asked = train.per_class(), test.per_class()
    lines = []
    if only_test := [c for c in test.classes if asked[c] and not learnt[c]]:
        lines.append(f"no training object of {shortened(only_test)}: they count in the mean with what is found")
    if only_train := [c for c in test.classes if learnt[c] and not asked[c]]:
        lines.append(f"no test object of {shortened(only_train)}: they are left out of the mean")
    return lines


def announce(lines: Iterable[str]) -> None:
    for line in lines:
        say(f"data: {line}")
