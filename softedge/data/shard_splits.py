"""Splits and class folders within tar files: ``train/cat/1.png`` in a tar is what it is in a folder.

The folders of shards usually mean nothing, and members say the classes. Where folders are named after splits they are
those splits, whoever says the classes; and where no member does, the folders below them are classes as in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softedge.data.grouping import by_split
from softedge.data.inventory import printable
from softedge.data.layouts import Located, located, misplaced, names_a_split, plain, roles
from softedge.errors import UserError
from softedge.progress import plural


@dataclass(frozen=True)
class Member:
    """An image in a shard.

    name: with the shard before it.  inside: within the shard.  place: shard, offset and size in bytes.  split: of the
    shard.
    """

    name: str
    inside: str
    place: tuple[int, int, int]
    split: str


def sorted_in(
    members: Sequence[Member], classes: Mapping[str, str], source: str, notices: list[str]
) -> tuple[list[Member], dict[str, str]]:
    """The members with the splits of the folders that they lie in, and their classes, "" for none.

    classes: member's name -> what the members beside it say.  UserError where a folder of test or validation images
    lies where no split is found: they would be trained on.
    """
    if not any(names_a_split(folder) for folder in {member.inside.rpartition("/")[0] for member in members}):
        return _without_labels(members, classes, notices)  # as nearly always; there may be millions
    outer = len({member.split for member in members}) > 1  # the shards have splits themselves
    before = [
        Located((str(number),), ((member.split,) if outer else ()) + image.at)
        for number, (member, image) in enumerate(zip(members, located([m.inside for m in members], notices)))
    ]
    images = plain(before, notices)
    splits_of = roles(images)
    _refuse_others(members, classes, images, splits_of, source)
    unlabelled = not any(classes.values()) and any(len(image.at) > 2 for image in images)
    # train.tar with the folder train in it is a folder that was packed; folders in other shards are parts of keys.
    packed = not outer or all(len(image.at) < len(old.at) for image, old in zip(images, before))
    if splits_of and unlabelled and packed:
        return _as_folders(members, images, splits_of, source, notices)
    if splits_of and not outer:
        splits = [splits_of.get(image.at[0]) if len(image.at) > 1 else None for image in images]
        if left_out := splits.count(None):
            notices.append(plural(left_out, "image") + " outside of train/ val/ test/ unlabeled/ left out")
        members = [replace(member, split=split) for member, split in zip(members, splits) if split is not None]
        notices.append(f"the splits are those of the folders in the tar files ({_shown(splits_of)})")
    return _without_labels(members, classes, notices)


def _without_labels(
    members: Sequence[Member], classes: Mapping[str, str], notices: list[str]
) -> tuple[list[Member], dict[str, str]]:
    """What is called unlabelled has no labels, whatever lies beside it."""
    out = {m.name: "" if m.split == "unlabelled" else classes[m.name] for m in members}
    if count := sum(bool(classes[m.name]) for m in members if m.split == "unlabelled"):
        notices.append(f"{plural(count, 'label')} of images in unlabeled/: not used")
    return list(members), out


def _as_folders(
    members: Sequence[Member],
    images: Sequence[Located],
    splits_of: Mapping[str, str],
    source: str,
    notices: list[str],
) -> tuple[list[Member], dict[str, str]]:
    try:
        groups = by_split(Path(source), images, splits_of, notices)
    except UserError as error:
        raise UserError(f"{error} (these folders are in the tar file: extract it to change them)") from error
    notices.append(f"splits and labels are those of the folders in the tar files ({_shown(splits_of)})")
    placed, classes = [], {}
    for split, group in groups.items():
        for (number,), label in group:
            member = replace(members[int(number)], split=split)
            placed.append(member)
            classes[member.name] = label or ""
    return sorted(placed, key=lambda member: member.place), classes


def _refuse_others(
    members: Sequence[Member],
    classes: Mapping[str, str],
    images: Sequence[Located],
    splits_of: Mapping[str, str],
    source: str,
) -> None:
    """UserError for a folder of test or validation images among those of another split, or of none."""
    for member, image in zip(members, images):
        folder = misplaced(image, splits_of)
        if folder is not None and classes[member.name] != folder:
            raise UserError(
                f"{source} has the folder {printable(folder)} among images to train on ({member.name}); extract the "
                f"tar file and give a folder of train/ and {printable(folder)}/, or rename the folder if it is no split"
            )


def _shown(splits_of: Mapping[str, str]) -> str:
    return ", ".join(printable(folder) for folder in splits_of)
