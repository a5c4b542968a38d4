"""The test split: chosen by the content of the files, before any training.

Copies of one picture stand or fall together: a picture in two files is one picture to test on, and one with two labels
is none.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError
from softedge.progress import plural

_LARGEST = 0.2  # share of a class that near-duplicates may tie together, ...
_FEW = 10  # ... or so many images, as long as they are not most of the class


class TooFew(UserError):
    """Classes with too few images to split.  classes: their numbers."""

    def __init__(self, message: str, classes: Sequence[int]):
        super().__init__(message)
        self.classes = tuple(classes)


def hold_out(
    hashes: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    fraction: float,
    seed: int,
    tolerant: bool = False,
) -> NDArray[np.bool_]:
    """Choose the test images of each class: True (N,) where an image is held out.

    Within a class the images are ranked by sha256(seed + content) and the first ``round(fraction * n)`` are held out,
    at least one and never all. The choice does not depend on names or order, and an added image moves at most one other
    across the line. TooFew when a class has too few images to split; tolerant: they all stay training images.
    """
    held, rank = np.zeros(len(hashes), bool), _ranks(hashes, seed)
    of_class: dict[int, list[int]] = {number: [] for number in range(len(classes))}
    for index, label in enumerate(labels):
        of_class[label].append(index)
    few = [number for number, members in of_class.items() if len(members) < 2]
    if few and not tolerant:
        raise TooFew(_too_few({classes[number]: len(of_class[number]) for number in few}), few)
    for members in of_class.values():
        if len(members) < 2:
            continue
        chosen = min(max(1, round(fraction * len(members))), len(members) - 1)
        held[sorted(members, key=rank.__getitem__)[:chosen]] = True
    return held


def _too_few(counts: Mapping[str, int]) -> str:
    """counts: class -> images."""
    why = "too few to train on one and test on another (copies count once)"
    if len(counts) == 1:
        ((name, count),) = counts.items()
        return f"class '{name}' has {plural(count, 'readable image')}, {why}"
    shown = ", ".join(f"'{name}' {count}" for name, count in list(counts.items())[:5])
    return f"{len(counts)} classes have fewer than two readable images ({shown}{', ...' * (len(counts) > 5)}), {why}"


def _ranks(hashes: Sequence[str], seed: int) -> list[bytes]:
    """What images are ordered by to hold some out: the smallest first."""
    return [hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in hashes]


@dataclass(frozen=True)
class Item:
    """One image of the index.

    split: "train", "test", "unlabelled"; or set aside: "duplicate" of a test image, "contradiction" with another label.
    content: what its copies share.  rank: the hash that decides whether it is held out, its own or that of the file
    that it was made from.
    """

    name: str
    sha256: str
    split: str
    label: int
    content: str = ""
    rank: str = ""


def grouped(items: Sequence[Item], by_stem: bool) -> list[int]:
    """The group of each item: copies by content and, with ``by_stem``, files of one name and several types."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, item in enumerate(items):
        keys = [f"content {item.content or item.sha256}"]
        if by_stem:
            keys.append(f"stem {PurePosixPath(item.name).with_suffix('')}")
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(items))]


def joined(groups: Sequence[int], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The groups with those of each pair made one."""
    parent = {group: group for group in groups}

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for first, second in pairs:
        parent[root(groups[first])] = root(groups[second])
    return [root(group) for group in groups]


def _within(
    families: Sequence[int], groups: Sequence[int], items: Sequence[Item], where: Sequence[str]
) -> list[tuple[int, int]]:
    """What stands on one side of the split: families, except where one is a large part of a class.

    Frames of a film are near-duplicates all along: as one family the class could not be split at all.
    """
    size: Counter[tuple[int, int]] = Counter()
    of_class: Counter[int] = Counter()
    for i, item in enumerate(items):
        if where[i] == "train":
            size[families[i], item.label] += 1
            of_class[item.label] += 1
    wide = {
        family
        for (family, label), count in size.items()
        if count > max(_FEW, _LARGEST * of_class[label]) or 2 * count > max(2, of_class[label])
    }
    return [(groups[i], 1) if families[i] in wide else (families[i], 0) for i in range(len(items))]


def contradictions(items: Sequence[Item], groups: Sequence[int]) -> list[list[int]]:
    """The items of each group that has two labels."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, (item, group) in enumerate(zip(items, groups)):
        if item.split in ("train", "test") and item.label >= 0:
            members[group].append(i)
    return [group for group in members.values() if len({items[i].label for i in group}) > 1]


def hold_out_any(hashes: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose ``round(fraction * n)`` images without regard to their labels, as ``hold_out`` does within a class."""
    held, rank = np.zeros(len(hashes), bool), _ranks(hashes, seed)
    held[sorted(range(len(hashes)), key=rank.__getitem__)[: round(fraction * len(hashes))]] = True
    return held


def split(
    items: Sequence[Item],
    classes: Sequence[str],
    fraction: float,
    seed: int,
    by_stem: bool = False,
    which: str = "labelled",
    near: Sequence[tuple[int, int]] = (),
    tolerant: bool = False,
) -> list[Item]:
    """Hold out test images where none are given, and set aside copies of test images and contradictory labels.

    which: "labelled" images are held out, class by class; "all", whatever their label; or "none".
    tolerant: a class with too few images to split has no test image; else TooFew.

    Of copies in the test split the first one stays; copies within training stay where they are.
    near: pairs of near-duplicates, by position. They fall on one side of the split, and a training image is set aside
    for one in the test split; unlike copies they all stay in the test split, and two labels do not put them aside.
    """
    groups = grouped(items, by_stem)
    where = [item.split for item in items]
    for contrary in contradictions(items, groups):
        for i in contrary:
            where[i] = "contradiction"
    families = _within(joined(groups, near), groups, items, where)
    if (classes or which == "all") and which != "none" and "test" not in {item.split for item in items}:
        members: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, family in enumerate(families):
            if where[i] == "train" or (which == "all" and where[i] == "unlabelled"):
                members[family].append(i)
        ranks = [min(items[i].rank or items[i].sha256 for i in copies) for copies in members.values()]
        labels = [items[copies[0]].label for copies in members.values()]
        by_class = which == "labelled"
        held = (
            hold_out(ranks, labels, classes, fraction, seed, tolerant)
            if by_class
            else hold_out_any(ranks, fraction, seed)
        )
        for copies, out in zip(members.values(), held):
            for i in copies if out else ():
                where[i] = "test"
    tested: set[int] = set()
    for i, group in enumerate(groups):
        if where[i] == "test":
            where[i] = "duplicate" if group in tested else "test"
            tested.add(group)
    leaking = {family for i, family in enumerate(families) if where[i] == "test"}
    for i, group in enumerate(groups):
        if where[i] in ("train", "unlabelled") and (group in tested or families[i] in leaking):
            where[i] = "duplicate"
    return [replace(item, split=place) for item, place in zip(items, where)]
