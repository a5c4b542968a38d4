"""Where the pictures, annotations and splits of a Pascal VOC data set are, as different tools leave them.

ImageSets/Main/*.txt beside Annotations/ and JPEGImages/     the VOC devkit; also in VOC2007/, VOC2012/ below it
annotations/ beside images/                                  LabelImg and others, without splits
train/ valid/ test/, each with pictures and .xml files       Roboflow
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from softedge.data.decoding import BadImage, read
from softedge.detection import voc_xml
from softedge.detection.notices import Notices
from softedge.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_ANNOTATIONS = ("Annotations", "annotations", "annotation", "xmls", "labels")
_IMAGES = ("JPEGImages", "images", "Images", "imgs", "image", "")
_HELD_OUT = 0.2  # of a data set without splits


@dataclass(frozen=True)
class Entry:
    """One picture and its annotation, which need not be there."""

    picture: Path
    annotation: Path


def find(folder: Path, train: Notices, test: Notices) -> tuple[list[Entry], list[Entry]]:
    """The entries of the training and the test split; UserError where the folder is laid out in no known way."""
    if roots := _roots(folder):
        if any((root / "ImageSets" / "Main").is_dir() for root in roots):
            return _listed(folder, roots, train, test)
        pairs = [entry for root in roots for entry in _pairs(root, train)]
        return _held_out(folder, pairs, train)
    parts = {name: _part(folder, names) for name, names in _SPLITS.items()}
    if parts["train"] is not None:
        tested = parts["test"] or parts["val"]
        entries = _pairs(parts["train"], train)
        if tested is None:
            return _held_out(folder, entries, train)
        if parts["test"] is not None and parts["val"] is not None:
            test.note(f"{parts['val'].name}/ is used neither for training nor for the test")
        return entries, _pairs(tested, test)
    if any(folder.glob("*.xml")):
        return _held_out(folder, _pairs(folder, train), train)
    raise UserError(
        f"{folder} is not in Pascal VOC format: expected Annotations/ and JPEGImages/ in it, or in folders like "
        "VOC2007/ below it, annotations/ beside images/, or train/ and test/ with .xml files"
    )


_SPLITS = {"train": ("train", "training"), "val": ("valid", "val", "validation"), "test": ("test", "testing")}


def _part(folder: Path, names: Iterable[str]) -> Path | None:
    """A split's folder that holds annotations."""
    for name in names:
        if (folder / name).is_dir() and (_annotations(folder / name) or any((folder / name).glob("*.xml"))):
            return folder / name
    return None


def _annotations(root: Path) -> Path | None:
    return next((root / name for name in _ANNOTATIONS if any((root / name).glob("*.xml"))), None)


def _roots(folder: Path) -> list[Path]:
    for base in (folder, folder / "VOCdevkit"):
        if _is_root(base):
            return [base]
        if below := sorted(path for path in base.glob("*") if (path / "ImageSets").is_dir() and _is_root(path)):
            return below
    return []


def _is_root(folder: Path) -> bool:
    listed = (folder / "ImageSets").is_dir() and any((folder / name).is_dir() for name in _ANNOTATIONS)
    return listed or _annotations(folder) is not None


def _listed(folder: Path, roots: list[Path], train: Notices, test: Notices) -> tuple[list[Entry], list[Entry]]:
    """With a test.txt anywhere (VOC 2007): train on every trainval.txt (or train and val), test on test.txt, which is
    the 07+12 protocol.  Without: train on train.txt, test on val.txt."""
    names = {root: {p.stem for p in (root / "ImageSets" / "Main").glob("*.txt")} for root in roots}
    if any("test" in listed for listed in names.values()):
        wanted = [(root, "trainval" if "trainval" in names[root] else "train+val") for root in roots]
        tested = [(root, "test") for root in roots if "test" in names[root]]
    else:
        wanted, tested = [(root, "train") for root in roots], [(root, "val") for root in roots]
    splits = []
    for what, chosen, notices in (("training", wanted, train), ("test", tested, test)):
        entries = [entry for root, split in chosen for entry in _of_lists(root, split, notices)]
        if not entries:
            lists = ", ".join(sorted({f"{name}.txt" for listed in names.values() for name in listed})) or "nothing"
            raise UserError(
                f"{folder} has no usable {what} image; ImageSets/Main lists {lists}; list the images of each split in "
                "train.txt and val.txt there, or remove ImageSets to have a fifth held out"
            )
        splits.append(entries)
    return splits[0], splits[1]


def _of_lists(root: Path, split: str, notices: Notices) -> list[Entry]:
    lists = [root / "ImageSets" / "Main" / f"{part}.txt" for part in split.split("+")]
    if missing := [str(path) for path in lists if not path.is_file()]:
        raise UserError(
            f"{missing[0]} is not there; list the images of each split in ImageSets/Main, or remove ImageSets to have "
            "a fifth of the images held out"
        )
    lines = [line.strip() for path in lists for line in _lines(path) if line.strip()]
    annotations = _annotations(root) or root / _ANNOTATIONS[0]
    pictures = _Pictures(root, annotations, notices)
    entries: dict[Path, Entry] = {}
    twice = False
    for line in lines:
        picture = pictures.named(line) or pictures.named(line.split()[0])  # class lists say 1 or -1 after the name
        if picture is None:
            notices.add("listed images are not in JPEGImages/ and are left out", line.split()[0])
            continue
        twice = twice or picture in entries
        entries.setdefault(picture, Entry(picture, annotations / f"{picture.stem}.xml"))
    if twice:
        notices.add("images listed twice, used once", f"{split}.txt")
    return list(entries.values())


def _lines(path: Path) -> list[str]:
    try:
        return read(path).decode("utf-8-sig").splitlines()
    except (BadImage, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of image names ({error})") from error


class _Pictures:
    """The pictures of a data set by name, with or without the ending and the folder in front."""

    def __init__(self, root: Path, annotations: Path, notices: Notices):
        folder = next((root / name for name in _IMAGES if (root / name).is_dir()), root)
        self.annotations, self.notices = annotations, notices
        self.by_name: dict[str, Path] = {}
        self.by_stem: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in PICTURES and path.is_file():
                self.by_name[path.name] = path
                self.by_stem.setdefault(path.stem, []).append(path)

    def named(self, text: str) -> Path | None:
        name = Path(text.replace("\\", "/")).name
        if name in self.by_name or name in self.by_stem:
            return self.by_name.get(name) or self.of(name)
        return self.of(Path(name).stem) if name.lower().endswith((*PICTURES, ".xml")) else None

    def of(self, stem: str) -> Path | None:
        """The picture that the annotation of this name is about: of several, the one that it names."""
        paths = self.by_stem.get(stem, [])
        if len(paths) > 1:
            try:
                said = voc_xml.read(self.annotations / f"{stem}.xml").filename.lower()
            except (FileNotFoundError, voc_xml.BadAnnotation):
                said = ""
            if (path := next((path for path in paths if path.name.lower() == said), None)) is not None:
                return path
            self.notices.add(
                "annotations could be of several pictures and do not say which: the first is used",
                " or ".join(path.name for path in paths),
            )
        return paths[0] if paths else None


def _pairs(root: Path, notices: Notices) -> list[Entry]:
    """Every annotation with the picture of its name."""
    folder = _annotations(root) or root
    pictures, entries = _Pictures(root, folder, notices), []
    for path in sorted(folder.glob("*.xml")):
        picture = pictures.of(path.stem)
        if picture is None:
            notices.add("annotations have no picture of their name and are left out", path.name)
        else:
            entries.append(Entry(picture, path))
    return entries


def _held_out(folder: Path, entries: list[Entry], notices: Notices) -> tuple[list[Entry], list[Entry]]:
    """A fifth for the test, by the hash of the picture's file: copies fall on one side, and so it stays when pictures
    are added."""
    ranked: dict[bytes, list[Entry]] = {}
    for entry in entries:
        ranked.setdefault(hashlib.sha256(entry.picture.read_bytes()).digest(), []).append(entry)
    if len(ranked) < 2:
        raise UserError(f"{folder} has {len(ranked)} annotated pictures; a training and a test picture are the least")
    order = sorted(ranked)
    limit = int(_HELD_OUT * 256)
    count = min(max(1, sum(digest[0] < limit for digest in order)), len(order) - 1)
    held = {id(entry) for digest in order[:count] for entry in ranked[digest]}
    train = [entry for entry in entries if id(entry) not in held]
    test = [entry for entry in entries if id(entry) in held]
    notices.note(
        f"no splits, so {len(test)} of {len(entries)} pictures are held out for the test, chosen by content; list them "
        "in ImageSets/Main/train.txt and val.txt to choose others"
    )
    return train, test
