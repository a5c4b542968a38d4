"""Folders of images: flat (unlabelled), class folders, or train/ val/ test/ unlabeled/ of either."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from softedge.data import decisions, runs, sessions
from softedge.data.companions import photos_among
from softedge.data.decisions import Labelled
from softedge.data.decoding import BadImage, Uint8, decode
from softedge.data.images import UNLABELLED, FileImages, Images
from softedge.data.inventory import EXTENSIONS, Inventory, printable
from softedge.data.layouts import (
    Located,
    is_junk,
    is_unlabelled,
    located,
    plain,
    refuse_detection,
    refuse_nested,
    roles,
)
from softedge.data.shards import is_tar
from softedge.errors import UserError
from softedge.progress import plural


@dataclass(frozen=True)
class Listing:
    """Image files below a folder, as sorted relative paths, and what was ignored.

    others: files that are not images.  empty: folders without an image anywhere below, with their count of other files.
    runs: folders of softedge's runs, which were not looked into.
    """

    names: tuple[str, ...]
    ignored: Mapping[str, int]
    others: tuple[str, ...] = ()
    empty: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[str, ...] = ()


def scan(root: Path) -> Listing:
    """List the images below ``root``. Links are followed, but never into a folder that is already being listed.

    UserError where it cannot be read, or is a run of softedge; runs below it are left out.
    """
    runs.refuse(root)
    names: list[str] = []
    others: list[str] = []
    empty: dict[str, int] = {}
    within: list[str] = []
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
        if prefix and runs.is_run(folder):
            ignored["softedge runs"] += 1
            within.append(prefix.rstrip("/"))
            return
        before = len(names), len(others), len(within)
        for entry in entries:
            if is_junk(entry.name):
                ignored["hidden"] += 1
            elif _is_folder(entry):
                visit(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                names.append(prefix + entry.name)  # a broken link too: screening names it
            else:
                others.append(prefix + entry.name)
                ignored["tar files" if is_tar(entry.name) else "not images"] += 1
        if prefix and (len(names), len(within)) == (before[0], before[2]):
            empty[prefix.rstrip("/")] = len(others) - before[1]

    visit(root, "", frozenset())
    return Listing(tuple(sorted(names)), dict(ignored), tuple(others), empty, tuple(within))


def _without_table(listing: Listing) -> Listing:
    """``labels.csv`` is read: it does not count as an ignored file."""
    left = listing.ignored["not images"] - 1
    ignored = {why: count for why, count in {**listing.ignored, "not images": left}.items() if count}
    return replace(listing, ignored=ignored, others=tuple(name for name in listing.others if name != decisions.FILE))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _pixels(path: Path) -> Uint8 | None:
    try:
        return decode(path)
    except BadImage:
        return None


def find(root: Path, source: str, readable: Mapping[str, str] | None = None, *, reviewed: bool = True) -> Inventory:
    """Find the images below ``root`` and read labels and splits from the names of its folders.

    readable: folder name -> class name, where a data set names its folders by code.
    reviewed: put the decisions of ``labels.csv`` in place of the folders' labels.
    """
    decided = decisions.read(root) if reviewed else {}
    listing = scan(root)
    if decided:
        listing = _without_table(listing)
    if not listing.names:
        passed = "; ".join(f"{count} {why}" for why, count in listing.ignored.items())
        raise UserError(f"no images in {root}{f' (ignored: {passed})' if passed else ''}; give a folder of images")
    refuse_detection(root, listing.others)
    notices: list[str] = []
    images = located(listing.names, notices)
    if tars := listing.ignored.get("tar files"):
        notices.append(
            f"{tars} tar files beside the images are not read: shards are, from a folder that holds nothing else, or "
            "from train/ test/ unlabeled/ that all hold shards; unpack them to use them here"
        )
    if listing.runs:
        shown = ", ".join(map(printable, listing.runs[:3])) + (", ..." if len(listing.runs) > 3 else "")
        notices.append(f"{plural(len(listing.runs), 'softedge run')} among the images left out ({shown})")
    first = len(notices)
    photos, left_out = photos_among(images, lambda path: _pixels(root.joinpath(*path)), notices)
    thumbnails, without = left_out.get("thumbnails", 0), notices[first : first + 1]
    if not photos:
        raise UserError(f"all {len(images)} images in {root} lie in folders of thumbnails ({notices[first]})")
    images = photos
    ignored = {**listing.ignored, **left_out}
    images = plain(images, notices)
    splits_of = roles(images)
    try:
        groups = _by_split(root, images, splits_of, notices) if splits_of else _by_class(root, images, notices)
    except UserError as error:
        raise (UserError("; ".join([str(error), *without])) if thumbnails else error) from None
    if decided is None:
        notices.append(f"{decisions.FILE} has no columns 'name' and 'label' and is not read")
    elif decided:
        folder_of = {shown: folder for folder, shown in (readable or {}).items()}
        names = [printable(name) for name in listing.names]
        applied = decisions.apply(root, groups, decided, names, folder_of)
        groups, ignored = applied.groups, {**ignored, **applied.ignored}
        notices += applied.notices
    classes_without = _classes_without_images(listing.empty, splits_of, groups)
    if classes_without:
        ignored["class folders without images"] = len(classes_without)
        shown = "; ".join(f"{printable(name)}: {others} other files" for name, others in classes_without[:5])
        notices.append(
            f"{len(classes_without)} folders hold no images of a known type and make no class ({shown}"
            f"{'; ...' if len(classes_without) > 5 else ''})"
        )
    folders = sorted({label for group in groups.values() for _, label in group if label is not None})
    number = {folder: i for i, folder in enumerate(folders)}
    splits: dict[str, Images] = {}
    for split, group in groups.items():
        if group:
            labels = np.array([UNLABELLED if c is None else number[c] for _, c in group], np.int64)
            splits[split] = FileImages(root, [printable("/".join(path)) for path, _ in group], labels)
    classes = tuple((readable or {}).get(folder, folder) for folder in folders)
    if readable is None and (line := sessions.caution(classes, str(root))):
        notices.insert(0, line)
    return Inventory(source, classes, splits, ignored, tuple(notices))


def _classes_without_images(
    empty: Mapping[str, int], splits_of: Mapping[str, str], groups: Mapping[str, Labelled]
) -> list[tuple[str, int]]:
    """Folders where classes are, but without images; only where there are classes."""
    if not any(label is not None for group in groups.values() for _, label in group):
        return []
    depth = 2 if splits_of else 1
    labelled = {top for top, split in splits_of.items() if split != "unlabelled"}
    candidates = [(name, others) for name, others in empty.items() if name.count("/") == depth - 1]
    return sorted((name, others) for name, others in candidates if not splits_of or name.split("/")[0] in labelled)


def _class_name(folder: str) -> str:
    """One spelling for what looks the same: macOS decomposes letters, other systems do not."""
    return unicodedata.normalize("NFC", printable(folder))


def _by_class(root: Path, images: Sequence[Located], notices: list[str]) -> dict[str, Labelled]:
    """Class folders, with loose images beside them unlabelled; or a flat folder, all unlabelled."""
    inside = [i for i in images if len(i.at) > 1 and not is_unlabelled(i.at[0])]
    train: Labelled = [(i.path, _class_name(i.at[0])) for i in inside]
    loose: Labelled = [(i.path, None) for i in images if len(i.at) == 1 or is_unlabelled(i.at[0])]
    classes = {c for _, c in train}
    if len(classes) == 1:
        only = next(iter(classes))
        if len({p[1] for p, _ in train if len(p) > 2}) > 1:
            raise UserError(f"{root} holds only one folder; did you mean {root / str(only)}?")
        raise UserError(
            f"{root} has only one class ('{only}'); add a folder for every other class"
            f" (for unlabelled images give {root / str(only)})"
        )
    refuse_nested(root, inside)
    if train and loose:
        notices.append(plural(len(loose), "image") + " beside the class folders: taken as unlabelled")
    return {"train": train, "unlabelled": loose}


def _by_split(
    root: Path, images: Sequence[Located], splits_of: Mapping[str, str], notices: list[str]
) -> dict[str, Labelled]:
    """train/ val/ test/ unlabeled/: val/ serves as the test split when there is no test/."""
    below: dict[str, list[Located]] = {"train": [], "val": [], "test": [], "unlabelled": []}
    left_out = 0
    for image in images:
        role = splits_of.get(image.at[0]) if len(image.at) > 1 else None
        if role is None:
            left_out += 1
        else:
            below[role].append(image)
    if left_out:
        notices.append(plural(left_out, "image") + " outside of train/ val/ test/ unlabeled/ left out")
    if not below["train"] and not below["unlabelled"]:
        raise UserError(f"{root} has a test split but neither train/ nor unlabeled/; add one of them")
    test_role = "test" if below["test"] else "val"
    if below["test"] and below["val"]:
        notices.append(f"{len(below['val'])} images of the validation split are left out: there is a test split")
    inside = {
        role: [i for i in below[role] if len(i.at) > 2 and not is_unlabelled(i.at[1])] for role in ("train", test_role)
    }
    train: Labelled = [(i.path, _class_name(i.at[1])) for i in inside["train"]]
    labelled = set(inside["train"])
    unlabelled: Labelled = [(i.path, None) for i in below["train"] if i not in labelled]
    unlabelled += [(i.path, None) for i in below["unlabelled"]]
    test: Labelled = [(i.path, _class_name(i.at[1])) for i in inside[test_role]]
    nested = [replace(i, at=i.at[1:]) for images_of_role in inside.values() for i in images_of_role]
    if nested:
        refuse_nested(root / next(top for top, split in splits_of.items() if split in ("train", test_role)), nested)
    if len(test) < len(below[test_role]):
        loose = len(below[test_role]) - len(test)
        if not test:
            raise UserError(f"the {test_role} split of {root} has no class folders; sort its images, or remove it")
        notices.append(f"{plural(loose, 'image')} of the {test_role} split in no class folder left out")
    _check_classes(root, train, test, test_role, notices)
    return {"train": train, "test": test, "unlabelled": unlabelled}


def _check_classes(root: Path, train: Labelled, test: Labelled, role: str, notices: list[str]) -> None:
    known, tested = {str(c) for _, c in train}, {str(c) for _, c in test}
    if tested - known:
        strange = ", ".join(f"'{c}'" for c in sorted(tested - known)[:5])
        raise UserError(
            f"the {role} split of {root} has classes that train/ does not have ({strange}); add training images, or "
            "remove it"
        )
    if len(known) == 1:
        raise UserError(f"{root}/train has only one class ('{next(iter(known))}'); add a folder for every other class")
    if test and known - tested:
        absent = ", ".join(f"'{c}'" for c in sorted(known - tested)[:5])
        notices.append(f"{len(known - tested)} classes have no images in the {role} split ({absent})")
