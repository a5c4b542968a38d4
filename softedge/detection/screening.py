"""Looking at every picture once before training: what cannot be read, or is in both splits, is left out.

The test split keeps a picture that is in both: what a detector has seen must not be what it is measured on.  So it is
with a training picture that nearly duplicates one of the test split (``data.near_copies``), unless many do, as the
frames of a film: then they stay, and a notice says that the test split flatters.

A training picture under two names with different objects is left out under both: what one calls an object is
background in the other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from softedge.data import near_copies, ranges
from softedge.data.decoding import BadImage, decode, wide_pixels
from softedge.detection.copies import difference, groups
from softedge.detection.notices import Notices
from softedge.detection.pictures import check_size
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError
from softedge.progress import plural, track

_NEARLY_BLACK = 64  # of 255: 14 bits of 16
_MANY, _FEW = 0.2, 3  # share of the training pictures, and number, that may be left out as near-duplicates


@dataclass(frozen=True)
class Look:
    """content: a hash of the pixels.  bad: why the picture cannot be used.  thumbnail: None for plain or small ones.

    grey: the highest value of a picture with more than 8 bits, and what it became of 255.  colour: the highest value.
    """

    content: str
    bad: str = ""
    thumbnail: near_copies.Uint8 | None = None
    grey: tuple[int, int] | None = None
    colour: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """Paths of the scenes that are neither trained nor tested on, by split, and what to say about them."""

    train: frozenset[str] = frozenset()
    test: frozenset[str] = frozenset()
    notices: tuple[str, ...] = field(default=())

    def apply(self, train: Scenes, test: Scenes) -> tuple[Scenes, Scenes]:
        return _without(train, self.train), _without(test, self.test)


def _without(scenes: Scenes, names: frozenset[str]) -> Scenes:
    return replace(scenes, scenes=tuple(scene for scene in scenes.scenes if str(scene.path) not in names))


def screen(train: Scenes, test: Scenes, where: str) -> LeftOut:
    """Read every picture; UserError when a split has nothing left."""
    looks = [_look_at(split.scenes) for split in (train, test)]
    notices = Notices(f"{where} (train)"), Notices(f"{where} (test)")
    for line in _dark([*looks[0], *looks[1]]):
        notices[0].note(line)
    names: list[set[str]] = [set(), set()]
    tested = {look.content: scene for scene, look in zip(test.scenes, looks[1]) if not look.bad}
    for number, split in enumerate((train, test)):
        for scene, look in zip(split.scenes, looks[number]):
            if look.bad:
                notices[number].add("pictures cannot be used and are left out", f"{scene.path.name}: {look.bad}")
                names[number].add(str(scene.path))
            elif number == 0 and look.content in tested:
                notices[0].add("training pictures are in the test split, too, and are not trained on", scene.path.name)
                names[0].add(str(scene.path))
                if differs := difference(scene, tested[look.content], train.classes):
                    notices[0].add("of them have other objects there: one of the two is wrong", differs)
        names[number] |= _copies(split, looks[number], names[number], notices[number], training=number == 0)
    near = {train.scenes[a].path: test.scenes[b].path for a, b in _near(*looks)}
    near = {path: other for path, other in near.items() if str(path) not in names[0]}
    many = len(near) > max(_FEW, _MANY * len(train))
    what = "stay, as the frames of a film would: AP flatters" if many else "are not trained on"
    for path, other in near.items():
        notices[0].add(f"training pictures nearly duplicate test pictures and {what}", f"{path.name}: {other.name}")
    if not many:
        names[0] |= {str(path) for path in near}
    lines = tuple(line for notice in notices for line in notice.lines())
    for what, split, left_out in zip(("training", "test"), (train, test), names):
        if len(split) == sum(str(scene.path) in left_out for scene in split.scenes):
            raise UserError(f"{where} has no usable {what} picture; {lines[0]}")
    screened = LeftOut(frozenset(names[0]), frozenset(names[1]), lines)
    for what, split in zip(("training", "test"), screened.apply(train, test)):
        if not any(len(scene.trainable()[1]) for scene in split.scenes):
            crowds = sum(len(scene.labels) for scene in split.scenes)
            why = "; ".join([*([f"{crowds} are crowds or have no area"] if crowds else []), *split.notices[:1]])
            raise UserError(f"{where}: no {what} picture has an object with a box{f' ({why})' if why else ''}")
    return screened


def _copies(split: Scenes, looks: Sequence[Look], left_out: set[str], notices: Notices, *, training: bool) -> set[str]:
    """The pictures of a split that are one picture with different objects, each of which is background for the others:
    not trained on, as pictures with two labels are not. In the test split they stay, and are named."""
    contents = ["" if str(scene.path) in left_out else look.content for scene, look in zip(split.scenes, looks)]
    aside: set[str] = set()
    for group in groups(contents):
        first, *others = (split.scenes[i] for i in group)
        differing = [what for other in others if (what := difference(first, other, split.classes))]
        if training and differing:
            aside |= {str(scene.path) for scene in (first, *others)}
            notices.add(
                "pictures are there under several names with different objects, and not trained on", differing[0]
            )
        elif differing:
            notices.add("test pictures have copies with other objects: no detector can find both", differing[0])
        elif not training:
            names = " and ".join(scene.path.name for scene in (first, *others[:1]))
            notices.add("test pictures have copies in the test split: each counts", names)
    return aside


def _dark(looks: Sequence[Look]) -> list[str]:
    """What to do about pictures of more than 8 bits that leave their upper bits empty: a detector reads all 16."""
    grey = [look.grey for look in looks if look.grey is not None]
    colour = ranges.colour_notice([look.colour for look in looks if look.colour is not None])
    lines = [colour] if colour else []
    if grey and max(became for _, became in grey) < _NEARLY_BLACK:
        pictures = plural(len(grey), "picture in grey has", "pictures in grey have")
        used = max(1, *(top for top, _ in grey)).bit_length()
        lines.append(
            f"{pictures} more than 8 bits, of which they use {used}: detectors read 16, so these "
            "are nearly black; multiply the values to fill 16 bits"
        )
    return lines


def _near(train: Sequence[Look], test: Sequence[Look]) -> list[tuple[int, int]]:
    """Training and test pictures that are near-duplicates, by position in their split."""
    pairs = near_copies.pairs_among([look.thumbnail for look in (*train, *test)])  # first < second
    return [(pair.first, pair.second - len(train)) for pair in pairs if pair.first < len(train) <= pair.second]


def _look_at(scenes: Sequence[Scene]) -> list[Look]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        looks = pool.map(_look, scenes)
        return list(track(looks, "looking at the pictures", total=len(scenes)))


def _look(scene: Scene) -> Look:
    try:
        data = scene.read()
        image = decode(data)
        check_size(scene, image)
        wide = wide_pixels(data)
        # Of the pixels: the same picture with other metadata is the same picture.
        content = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        grey = (int(wide[0][1]), int(image.max())) if wide is not None and wide[0][0] == "I" else None
        return Look(content, "", near_copies.thumbnail(image), grey, ranges.colour_maximum(data))
    except BadImage as error:
        return Look("", str(error))
