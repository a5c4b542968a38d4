"""Folders of images: flat (unlabelled), class folders, or train/ val/ test/ unlabeled/ of either."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from softedge.data import decisions, label_table, runs, sessions
from softedge.data.companions import photos_among
from softedge.data.decisions import Labelled
from softedge.data.decoding import BadImage, Uint8, decode
from softedge.data.grouping import by_class, by_split
from softedge.data.images import UNLABELLED, FileImages, Images
from softedge.data.inventory import EXTENSIONS, Inventory, printable
from softedge.data.layouts import is_junk, located, plain, refuse_detection, roles
from softedge.data.tar_files import is_tar
from softedge.errors import UserError
from softedge.machine.names import refuse_unnamable
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
    refuse_unnamable([str(root), *names])
    return Listing(tuple(sorted(names)), dict(ignored), tuple(others), empty, tuple(within))


def _without_table(listing: Listing) -> Listing:
    """``labels.csv`` is read: it does not count as an ignored file."""
    left = listing.ignored["not images"] - 1
    ignored = {why: count for why, count in {**listing.ignored, "not images": left}.items() if count}
    return replace(listing, ignored=ignored, others=tuple(name for name in listing.others if name != label_table.FILE))


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
    listing = scan(root)
    foreign: UserError | None = None
    table: label_table.Table | None = None
    if label_table.FILE in listing.others:
        try:
            table = label_table.read(root)
        except label_table.Foreign as error:
            foreign = error
        except UserError:
            if reviewed:
                raise
        if foreign is None:
            listing = _without_table(listing)
    if not listing.names:
        passed = "; ".join(f"{count} {why}" for why, count in listing.ignored.items())
        raise UserError(f"no images in {root}{f' (ignored: {passed})' if passed else ''}; give a folder of images")
    refuse_detection(root, listing.others)
    decided = decisions.of_table(root, table) if reviewed and table is not None else {}
    notices: list[str] = []
    images = located(listing.names, notices)
    if tars := listing.ignored.get("tar files"):
        notices.append(
            f"{plural(tars, 'tar file')} beside the images left out: shards are read from a folder that holds nothing "
            "else, or from train/ test/ unlabeled/ that all hold shards; unpack them to use them here"
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
        groups = by_split(root, images, splits_of, notices) if splits_of else by_class(root, images, notices)
    except UserError as error:
        raise (UserError("; ".join([str(error), *without])) if thumbnails else error) from None
    if foreign is not None and reviewed:
        if not any(label is not None for group in groups.values() for _, label in group):
            raise foreign  # where nothing else says the labels, they may be meant
        notices.append(
            f"{label_table.FILE} is not read, it has no columns 'name' and 'label': the folders are the classes"
        )
    named = {label for group in groups.values() for _, label in group if label is not None}
    if decided:
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
            f"{plural(len(classes_without), 'folder holds', 'folders hold')} no images of a known type and "
            f"{'makes' if len(classes_without) == 1 else 'make'} no class ({shown}"
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
    if readable is None:
        doubts = sessions.caution(classes, str(root)), sessions.left_over(named & {*folders}, str(root))
        notices[:0] = filter(None, doubts)
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
