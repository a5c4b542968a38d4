"""Folders of images: flat (unlabelled), class folders, or train/ val/ test/ unlabeled/ of either."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softedge.data.images import UNLABELLED, FileImages, Images
from softedge.data.inventory import EXTENSIONS, SPLITS, Inventory
from softedge.errors import UserError

_JUNK_FOLDERS = ("__MACOSX", "__pycache__")

Parts = tuple[str, ...]  # a path below the root, split at its slashes


@dataclass(frozen=True)
class Listing:
    """Image files below a folder, as sorted relative paths, and what was passed over."""

    names: tuple[str, ...]
    ignored: Mapping[str, int]


def scan(root: Path) -> Listing:
    """List the images below ``root``. Links are followed, but never into a folder that is already being listed."""
    names: list[str] = []
    ignored: Counter[str] = Counter()

    def visit(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise UserError(f"data folder {root} cannot be read ({error.strerror})") from error
            ignored["folders that cannot be read"] += 1
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            ignored["links back to a folder above"] += 1
            return
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _JUNK_FOLDERS:
                ignored["hidden"] += 1
            elif entry.is_dir():
                visit(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                names.append(prefix + entry.name)  # a broken link too: screening names it
            elif entry.name.lower().endswith(".tar"):
                ignored["tar files"] += 1
            else:
                ignored["not images"] += 1

    visit(root, "", frozenset())
    return Listing(tuple(sorted(names)), dict(ignored))


def find(root: Path, source: str, readable: Mapping[str, str] | None = None) -> Inventory:
    """Find the images below ``root`` and read labels and splits from the names of its folders.

    readable: folder name -> class name, where a data set names its folders by code.
    """
    listing = scan(root)
    if not listing.names:
        passed = "; ".join(f"{count} {why}" for why, count in listing.ignored.items())
        raise UserError(f"no images in {root}{f' (passed over: {passed})' if passed else ''}; give a folder of images")
    parts = [tuple(name.split("/")) for name in listing.names]
    notices: list[str] = []
    if tars := listing.ignored.get("tar files"):
        notices.append(
            f"{tars} tar files beside the images are not read: shards are, from a folder that holds nothing else, or "
            "from train/ test/ unlabeled/ that all hold shards; unpack them to use them here"
        )
    read_groups = _by_split if _has_split_folders(parts) else _by_class
    groups = read_groups(root, parts, notices)
    folders = sorted({label for group in groups.values() for _, label in group if label is not None})
    number = {folder: i for i, folder in enumerate(folders)}
    splits: dict[str, Images] = {}
    for split, group in groups.items():
        if group:
            labels = np.array([UNLABELLED if c is None else number[c] for _, c in group], np.int64)
            splits[split] = FileImages(root, ["/".join(p) for p, _ in group], labels)
    classes = tuple((readable or {}).get(folder, folder) for folder in folders)
    return Inventory(source, classes, splits, listing.ignored, tuple(notices))


Labelled = list[tuple[Parts, str | None]]  # path below the root, class folder


def _has_split_folders(parts: Iterable[Parts]) -> bool:
    """Whether the top folders are splits. A class may be called "train" too: then it stands among other classes."""
    nested: dict[str, bool] = {}  # top folder -> holds folders itself
    for p in parts:
        if len(p) > 1:
            nested[p[0]] = nested.get(p[0], False) or len(p) > 2
    roles = {SPLITS[top.lower()] for top in nested if top.lower() in SPLITS}
    only_splits = all(top.lower() in SPLITS for top in nested)
    train_has_classes = any(SPLITS.get(top.lower()) == "train" and deep for top, deep in nested.items())
    return bool(roles) and (only_splits or train_has_classes)


def _by_class(root: Path, parts: list[Parts], notices: list[str]) -> dict[str, Labelled]:
    """Class folders, with loose images beside them unlabelled; or a flat folder, all unlabelled."""
    train: Labelled = [(p, p[0]) for p in parts if len(p) > 1]
    loose: Labelled = [(p, None) for p in parts if len(p) == 1]
    classes = {c for _, c in train}
    if len(classes) == 1:
        only = next(iter(classes))
        if len({p[1] for p, _ in train if len(p) > 2}) > 1:
            raise UserError(f"{root} holds one folder only; did you mean {root / str(only)}?")
        raise UserError(
            f"{root} has one class only ('{only}'), nothing to tell it from; add a folder for each further class"
            f" (for unlabelled images give {root / str(only)})"
        )
    if train and loose:
        notices.append(f"{len(loose)} images beside the class folders are taken as unlabelled")
    return {"train": train, "unlabelled": loose}


def _by_split(root: Path, parts: list[Parts], notices: list[str]) -> dict[str, Labelled]:
    """train/ val/ test/ unlabeled/: val/ serves as the test split when there is no test/."""
    below: dict[str, list[Parts]] = {"train": [], "val": [], "test": [], "unlabelled": []}
    left_out = 0
    for p in parts:
        role = SPLITS.get(p[0].lower()) if len(p) > 1 else None
        if role is None:
            left_out += 1
        else:
            below[role].append(p)
    if left_out:
        notices.append(f"{left_out} images outside of train/ val/ test/ unlabeled/ are left out")
    if not below["train"] and not below["unlabelled"]:
        raise UserError(f"{root} has a test split but neither train/ nor unlabeled/; add one of them")
    test_role = "test" if below["test"] else "val"
    if below["test"] and below["val"]:
        notices.append(f"{len(below['val'])} images of the validation split are left out: there is a test split")
    train: Labelled = [(p, p[1]) for p in below["train"] if len(p) > 2]
    unlabelled: Labelled = [(p, None) for p in below["train"] if len(p) == 2]
    unlabelled += [(p, None) for p in below["unlabelled"]]
    test: Labelled = [(p, p[1]) for p in below[test_role] if len(p) > 2]
    if len(test) < len(below[test_role]):
        loose = len(below[test_role]) - len(test)
        if not test:
            raise UserError(f"the {test_role} split of {root} has no class folders; sort its images, or remove it")
        notices.append(f"{loose} images of the {test_role} split that are in no class folder are left out")
    _check_classes(root, train, test, test_role, notices)
    return {"train": train, "test": test, "unlabelled": unlabelled}


def _check_classes(root: Path, train: Labelled, test: Labelled, role: str, notices: list[str]) -> None:
    known, tested = {str(c) for _, c in train}, {str(c) for _, c in test}
    if tested - known:
        strange = ", ".join(f"'{c}'" for c in sorted(tested - known)[:5])
        raise UserError(
            f"the {role} split of {root} has classes that train/ has not ({strange}); add training images, or remove it"
        )
    if len(known) == 1:
        raise UserError(f"{root}/train has one class only ('{next(iter(known))}'); add a folder for each further class")
    if test and known - tested:
        absent = ", ".join(f"'{c}'" for c in sorted(known - tested)[:5])
        notices.append(f"{len(known - tested)} classes have no images in the {role} split ({absent})")
