"""Labels and splits from the folders that images lie in: of files in a folder, and of members of a tar file."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from softedge.data.decisions import Labelled
from softedge.data.inventory import printable
from softedge.data.layouts import Located, is_unlabelled, lying, misplaced, refuse_nested
from softedge.data.spelling import bare
from softedge.errors import UserError
from softedge.progress import plural


def _class_name(folder: str) -> str:
    """One spelling for what looks the same: macOS decomposes letters, other systems do not."""
    return unicodedata.normalize("NFC", printable(folder))


def by_class(root: Path, images: Sequence[Located], notices: list[str]) -> dict[str, Labelled]:
    """Class folders, with loose images beside them unlabelled; or a flat folder, all unlabelled."""
    inside = [i for i in images if len(i.at) > 1 and not is_unlabelled(i.at[0])]
    train: Labelled = [(i.path, _class_name(i.at[0])) for i in inside]
    loose: Labelled = [(i.path, None) for i in images if len(i.at) == 1 or is_unlabelled(i.at[0])]
    classes = {c for _, c in train}
    if len(classes) == 1:
        only = next(iter(classes))
        depth = 1  # to where the folders part
        while all(len(i.at) > depth + 1 for i in inside) and len({i.at[depth] for i in inside}) == 1:
            depth += 1
        parts = len({i.at[depth] for i in inside if len(i.at) > depth + 1}) > 1
        deeper = lying(root, inside, depth if parts else 1)
        folder = root / printable("/".join(deeper[0])) if deeper else None
        if folder and parts:
            raise UserError(f"{root} holds only one folder; did you mean {folder}?")
        raise UserError(
            f"{root} has only one class ('{only}'); add a folder for every other class"
            + (f" (for unlabelled images give {folder})" if folder else "")
        )
    refuse_nested(root, inside)
    _refuse_misplaced(root, inside, {})
    if train and loose:
        notices.append(plural(len(loose), "image") + " beside the class folders: taken as unlabelled")
    return {"train": train, "unlabelled": loose}


def by_split(
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
        notices.append(plural(len(below["val"]), "image") + " of the validation split left out: there is a test split")
    inside = {
        role: [i for i in below[role] if len(i.at) > 2 and not is_unlabelled(i.at[1])] for role in ("train", test_role)
    }
    train: Labelled = [(i.path, _class_name(i.at[1])) for i in inside["train"]]
    labelled = set(inside["train"])
    unlabelled: Labelled = [(i.path, None) for i in below["train"] if i not in labelled]
    unlabelled += [(i.path, None) for i in below["unlabelled"]]
    test: Labelled = [(i.path, _class_name(i.at[1])) for i in inside[test_role]]
    refuse_nested(root, [image for images_of_role in inside.values() for image in images_of_role], depth=1)
    _refuse_misplaced(root, inside["train"], splits_of)
    if len(test) < len(below[test_role]):
        loose = len(below[test_role]) - len(test)
        if not test:
            raise UserError(f"the {test_role} split of {root} has no class folders; sort its images, or remove it")
        notices.append(f"{plural(loose, 'image')} of the {test_role} split in no class folder left out")
    _check_classes(root, train, test, test_role, notices)
    known = {str(c) for _, c in train}
    if len(known) == 1:
        folder = "/".join(next(iter(lying(root, inside["train"], 1)), ("train",)))
        raise UserError(
            f"{root / printable(folder)} has only one class ('{next(iter(known))}'); add a folder for every other class"
        )
    return {"train": train, "test": test, "unlabelled": unlabelled}


def _refuse_misplaced(root: Path, images: Sequence[Located], splits_of: Mapping[str, str]) -> None:
    """UserError where the validation or test images of others would be trained on: they lie in a class, or are one."""
    for image in images:
        if (folder := misplaced(image, splits_of)) is not None:
            name, example = printable(folder), printable("/".join(image.path))
            raise UserError(
                f"{root} has the folder {name} among images to train on ({example}); make a folder of train/ and "
                f"{name}/, each with the class folders, or rename the folder if it is no split"
            )


def _check_classes(root: Path, train: Labelled, test: Labelled, role: str, notices: list[str]) -> None:
    known, tested = {str(c) for _, c in train}, {str(c) for _, c in test}
    if tested - known:
        spelt = {bare(name): name for name in known}
        strange = ", ".join(
            f"'{name}'" + (f", which train/ spells '{spelt[bare(name)]}'" if bare(name) in spelt else "")
            for name in sorted(tested - known)[:5]
        )
        raise UserError(
            f"the {role} split of {root} has classes that train/ does not have ({strange}); add training images, or "
            "remove it"
        )
    if test and known - tested:
        absent = ", ".join(f"'{c}'" for c in sorted(known - tested)[:5])
        notices.append(
            f"{plural(len(known - tested), 'class has', 'classes have')} no images in the {role} split ({absent})"
        )
