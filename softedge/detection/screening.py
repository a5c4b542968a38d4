"""Looking at every picture once before training: what cannot be read, or is in both splits, is left out.

The test split keeps a picture that is in both: what a detector has seen must not be what it is measured on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from softedge.data.decoding import BadImage, decode
from softedge.detection.notices import Notices
from softedge.detection.pictures import check_size
from softedge.detection.scenes import Scene, Scenes
from softedge.errors import UserError
from softedge.progress import track


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
    names: list[set[str]] = [set(), set()]
    tested = {digest for digest, bad in looks[1] if not bad}
    for number, split in enumerate((train, test)):
        for scene, (digest, bad) in zip(split.scenes, looks[number]):
            if bad:
                notices[number].add("pictures cannot be used and are left out", f"{scene.path.name}: {bad}")
                names[number].add(str(scene.path))
            elif number == 0 and digest in tested:
                notices[0].add("training pictures are in the test split, too, and are not trained on", scene.path.name)
                names[0].add(str(scene.path))
    lines = tuple(line for notice in notices for line in notice.lines())
    for what, split, left_out in zip(("training", "test"), (train, test), names):
        if len(split) == sum(str(scene.path) in left_out for scene in split.scenes):
            raise UserError(f"{where} has no usable {what} picture; {lines[0]}")
    return LeftOut(frozenset(names[0]), frozenset(names[1]), lines)


def _look_at(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    """(hash of the content, what is wrong with it) of each picture."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        looks = pool.map(_look, scenes)
        return list(track(looks, "looking at the pictures", total=len(scenes)))


def _look(scene: Scene) -> tuple[str, str]:
    try:
        image = decode(scene.read())
        check_size(scene, image)
        # Of the pixels: the same picture with other metadata is the same picture.
        return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest(), ""
    except BadImage as error:
        return "", str(error)
