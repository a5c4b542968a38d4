"""What the names of folders mean: which are splits, which hold annotations, which are nobody's pictures.

People keep images as they were unpacked: ``seg_train/seg_train/forest``, ``train_images``, ``cat/train``. Read as class
folders these would train on wrong labels without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softedge.data.inventory import SPLITS, printable
from softedge.errors import UserError, quoted
from softedge.progress import plural

Parts = tuple[str, ...]  # a path below the root, split at its slashes

# Kept by systems and programs beside people's own files.
_JUNK = frozenset(["__macosx", "__pycache__", "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot"]) | frozenset(
    ["$recycle.bin", "lost+found", "system volume information"]
)
_PREDICTED = frozenset(["pred", "predict", "prediction", "predictions"])  # Kaggle's images to be labelled by others
PHOTOS = frozenset(["image", "images", "img", "imgs", "photo", "photos", "jpegimages", "rgb", "input", "inputs"])
_FILLER = PHOTOS | frozenset(["picture", "pictures", "pics", "data", "dataset", "set", "split", "jpg", "jpeg", "png"])
_UNLABELLED = frozenset(["unlabeled", "unlabelled", "no_label", "no_labels", "nolabel"])  # "no_label": CVAT's export
_LOOSE = 0.05  # images beside folders, of those in them: a cover, a chart


@dataclass(frozen=True)
class Located:
    """An image file.  path: where it lies.  at: where it would lie in a plain layout, which labels are read from."""

    path: Parts
    at: Parts


def located(names: Sequence[str], notices: list[str]) -> list[Located]:
    """Images where they lie; a backslash in a name is a folder's, as some zip files made on Windows have it."""
    images = [Located(tuple(name.split("/")), tuple(name.replace("\\", "/").split("/"))) for name in names]
    if count := sum(image.path != image.at for image in images):
        have = plural(count, "name has", "names have")
        notices.append(f"{have} backslashes, as a zip file from Windows leaves them: read as folders")
    return images


def is_junk(name: str) -> bool:
    """Whether systems and programs keep such a file or folder beside people's own."""
    return name.startswith(".") or name.lower() in _JUNK


def is_unlabelled(folder: str) -> bool:
    """Whether a folder among those of classes holds images of none."""
    return folder.lower() in _UNLABELLED


def role(name: str, shared: frozenset[str] = frozenset()) -> str | None:
    """The split that a folder's name stands for: "train", "Validation", "test_images", "seg_pred"; None: none.

    shared: words that stand in the names of all folders beside it, and so say nothing.
    """
    if name.lower() in SPLITS:
        return SPLITS[name.lower()]
    words = [word for word in _words(name) if word not in _FILLER | shared]
    if len(words) != 1:
        return None
    return "unlabelled" if words[0] in _PREDICTED else SPLITS.get(words[0])


def names_a_split(path: str) -> bool:
    """Whether any folder of a path could be one of a split."""
    return any(word in SPLITS or word in _PREDICTED for word in _words(path))


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.lower())


def roles(images: Sequence[Located]) -> dict[str, str]:
    """Top folder -> split; {} when the top folders are none. A class may be called "train", too: then it stands among
    other classes."""
    deep: dict[str, bool] = {}  # top folder -> holds folders itself
    for image in images:
        if len(image.at) > 1:
            deep[image.at[0]] = deep.get(image.at[0], False) or len(image.at) > 2
    exact = {top: SPLITS[top.lower()] for top in deep if top.lower() in SPLITS}
    if exact and (len(exact) == len(deep) or any(exact.get(top) == "train" and below for top, below in deep.items())):
        return exact
    names = [frozenset(_words(top)) for top in deep]
    shared = frozenset.intersection(*names) - SPLITS.keys() - _PREDICTED if len(names) > 1 else frozenset()
    guessed = {top: role(top, shared) for top in deep}
    known = {top: split for top, split in guessed.items() if split is not None}
    return known if len(known) == len(deep) and "train" in known.values() and len(set(known.values())) > 1 else {}


def plain(images: list[Located], notices: list[str]) -> list[Located]:
    """Undo what unpacking does to a layout: one folder around the splits, a split's folder within itself, splits
    within class folders."""
    tops = {image.at[0] for image in images}
    if len(tops) == 1 and all(len(image.at) > 2 for image in images):
        wrapped = _without_wrapping(images)
        if wrapped is not None:
            outer = len(images[0].at) - len(wrapped[0].at)
            notices.append(f"the splits are in the folder {'/'.join(images[0].at[:outer])}")
            return plain(wrapped, notices)
    if splits := roles(images):
        doubled = {top for top in splits if _holds_itself(top, splits[top], images)}
        return [replace(i, at=(i.at[0], *i.at[2:])) if i.at[0] in doubled else i for i in images]
    seconds = {image.at[1].lower() for image in images if len(image.at) > 2}
    if seconds and seconds <= SPLITS.keys() and all(len(image.at) > 2 for image in images) and len(tops) > 1:
        swapped = [replace(image, at=(image.at[1], image.at[0], *image.at[2:])) for image in images]
        if _has_train(roles(swapped)):
            notices.append("each class folder has folders for the splits")
            return swapped
    return images


def _without_wrapping(images: list[Located]) -> list[Located] | None:
    """Without the folders around the splits, each of which holds one folder and nothing else; None where no level has
    splits."""
    inner = images
    while len({image.at[0] for image in inner}) == 1 and all(len(image.at) > 2 for image in inner):
        inner = [replace(image, at=image.at[1:]) for image in inner]
        if _has_train(roles(inner)):
            return inner
    return None


def _has_train(splits: Mapping[str, str]) -> bool:
    return bool({"train", "unlabelled"} & set(splits.values()))


def _holds_itself(top: str, split: str, images: Sequence[Located]) -> bool:
    """Whether a split's folder holds one folder of its own name (or of the split's), and nothing else."""
    inner = {image.at[1] if len(image.at) > 2 else "" for image in images if image.at[0] == top}
    (only,) = inner if len(inner) == 1 else ("",)
    return bool(only) and (only.lower() == top.lower() or SPLITS.get(only.lower()) == split)


def misplaced(image: Located, splits_of: Mapping[str, str]) -> str | None:
    """The folder above an image that is called like validation or test images and lies among those of another split, or
    of none: the image would be trained on. None for other images, and where no labels are asked for."""
    own = splits_of.get(image.at[0]) if len(image.at) > 1 else None
    if own == "unlabelled" or (own is None and is_unlabelled(image.at[0])):
        return None
    for folder in image.at[1 if own else 0 : -1]:
        other = SPLITS.get(folder.lower())
        if other in ("val", "test") and own != other:
            return folder
    return None


def lying(root: Path, images: Iterable[Located], depth: int) -> list[Parts]:
    """The folders on the disk that the first ``depth`` folders of the images' places stand for: ``plain`` takes folders
    away and lets others change places. None for names that are read as folders, and in tar files.
    """
    folders = {image.path[: max(0, len(image.path) - len(image.at) + depth)] for image in images}
    return sorted(folder for folder in folders if folder and root.joinpath(*folder).is_dir())


def refuse_nested(root: Path, images: Iterable[Located], depth: int = 0) -> None:
    """UserError when a class folder holds further folders of images and hardly an image: which are the classes?

    depth: folders of splits above those of classes, 0 or 1.
    """
    tops: dict[str, list[Located]] = {}
    for image in images:
        if len(image.at) > depth + 1:
            tops.setdefault(image.at[depth], []).append(image)
    for top, below in sorted(tops.items()):
        _refuse_branches(root, top, below, depth + 1)


def _refuse_branches(root: Path, top: str, images: Sequence[Located], depth: int) -> None:
    """Look where the folders within a class folder part, through those that hold a single one.

    images: those of one folder, which is ``depth`` folders deep.
    """
    deeper: dict[str, list[Located]] = {}
    for image in images:
        if len(image.at) > depth + 1:
            deeper.setdefault(image.at[depth], []).append(image)
    held = sum(map(len, deeper.values()))
    loose = len(images) - held
    if not deeper or loose > _LOOSE * held:
        return
    named = sorted(name for name in deeper if any(word not in _FILLER for word in _words(name)))
    if len(deeper) == 1:
        (only,) = deeper
        _refuse_branches(root, top, deeper[only], depth + 1)
    elif len(named) > 1:  # folders called by numbers or dates are parts of a class
        shown = ", ".join(printable(name) for name in named[:4]) + (", ..." if len(named) > 4 else "")
        what, advice = _holder(root, lying(root, images, depth), images[0].at[:depth])
        raise UserError(
            f"{root} has the folder {what} folders ({shown}) and "
            f"{plural(loose, 'loose image') if loose else 'no images'}: if these folders are the classes, {advice}; if "
            f"{printable(top)} is a class, put its images into one folder"
        )


def _holder(root: Path, folders: Sequence[Parts], read_as: Parts) -> tuple[str, str]:
    """The words for a folder of folders, and what to do where those are the classes.

    folders: where it is on the disk, once in each split.  read_as: what it was taken for.
    """
    if not folders:
        return f"{printable('/'.join(read_as))} that holds", "put them in its place"
    path, parents = printable("/".join(folders[0])), sorted({folder[:-1] for folder in folders})
    if len(folders) == 1:
        return f"{path} that holds", f"use --data {quoted(root / path)}"
    if parents[0] and len(parents) == 1:  # setA/train, setA/test
        path = printable("/".join(parents[0]))
        return f"{path} whose splits hold", f"use --data {quoted(root / path)}"
    return f"{path} that holds", f"move them up, into {' and '.join(printable('/'.join(p)) for p in parents)}"


def refuse_detection(root: Path, others: Iterable[str]) -> None:
    """UserError for the layouts of COCO, Pascal VOC and YOLO.  others: the files that are not images."""
    for name in others:
        parts = [part.lower() for part in name.split("/")]
        kind = ""
        if name.endswith(".coco.json") or (
            len(parts) == 2 and parts[0] == "annotations" and parts[1].endswith(".json")
        ):
            kind = "COCO's"
        elif len(parts) >= 2 and parts[-2] == "annotations" and parts[-1].endswith(".xml"):
            kind = "Pascal VOC's"
        elif "labels" in parts[:-1] and parts[-1].endswith(".txt") and (root / name.split("/")[0]).is_dir():
            kind = "YOLO's" if _has_images_folder(root) else ""
        if kind:
            raise UserError(
                f"{root} holds boxes in {kind} layout ({printable(name)}), from which no classes of whole images "
                "follow; train a detector with softedge transfer, or give the folder of the images to use them without "
                "labels"
            )


def _has_images_folder(root: Path) -> bool:
    return (root / "images").is_dir() or any(path.is_dir() for path in root.glob("*/images"))
