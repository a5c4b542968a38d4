"""Classes of the images in tar shards: what the ``.cls``, ``.json`` and ``.txt`` members beside them say.

WebDataset leaves it to each user where a label lies. Read here is what can mean one thing only; the rest is refused by
the member's name, or is not a label: captions, boxes, facts about a photo.
"""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from softedge.data.spelling import number_in
from softedge.errors import UserError
from softedge.progress import plural

LONGEST = {".cls": 256, ".json": 1 << 20, ".txt": 256}  # suffix -> bytes of a member that is read
_KEYS = frozenset(["label", "cls", "class", "category", "class_name", "classname", "label_name", "category_name"])
_SEVERAL = re.compile(r"[\[({]?\s*[+-]?\d+(?:\.\d*)?(?:[\s,;]+[+-]?\d+(?:\.\d*)?)+[\s,;]*[\])}]?")  # [0, 1, 0]; 3 5
_DAMAGED = "cannot be read as JSON"
_LETTERS = 100  # of a class name
_WORDS = 3  # of a text that is a class and no caption


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a member says.  why: what is wrong with it, where it cannot be used."""

    member: str
    label: str = ""
    why: str = ""


class ShardLabels:
    """The members that may hold labels, by the image they belong to.

    An image takes the member of its own name but the last suffix (``clip03.0007.png`` and ``clip03.0007.cls``), else
    the one of its sample by WebDataset's rule, where a name ends at its first dot (``7.left.png`` and ``7.cls``).
    A ``.cls`` member comes first, then a ``.json`` one. ``.txt`` members are labels where all are, and nothing else is.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, _Entry]] = {suffix: {} for suffix in LONGEST}  # suffix -> stem -> what it says
        self._samples: dict[str, dict[str, list[str]]] = {suffix: {} for suffix in LONGEST}  # -> name to first dot
        self.unused = 0  # members without a label
        self._number_of: dict[str, tuple[str, str]] = {}  # class name -> its number, and the member that says it

    def add(self, member: str, data: bytes) -> None:
        """Take a member's content. UserError when there is one of the same name and kind."""
        suffix, stem = PurePosixPath(member).suffix.lower(), without_suffix(member)
        if stem in self._exact[suffix]:
            raise UserError(f"{member} is a second label of {stem}, beside one with another suffix; remove one of them")
        entry = self._from_json(member, data) if suffix == ".json" else _from_text(member, data)
        if suffix == ".json" and not entry.label and not entry.why:  # facts about a photo: there may be millions
            self.unused += 1
            return
        if suffix == ".txt" and not _may_be_class(entry.label):
            entry = _Entry(member)
        self._exact[suffix][stem] = entry
        if suffix != ".txt":
            self._samples[suffix].setdefault(_sample(member), []).append(member)

    def _from_json(self, member: str, data: bytes) -> _Entry:
        """{"label": 3}, {"cls": "cat"}, or both of one class: then the name."""
        try:
            value = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return _Entry(member, why=f"{_DAMAGED} ({error})")
        if isinstance(value, dict):
            values = {key: v for key, v in value.items() if key.lower() in _KEYS and v is not None}
        else:
            values = {"it": value} if isinstance(value, str | int | float) else {}
        numbers: set[str] = set()
        names: set[str] = set()
        for key, one in values.items():
            label = _label(one)
            if label is None or _SEVERAL.fullmatch(label):
                return _Entry(member, why=f"says {key}: {json.dumps(one)[:60]}, which is not a single class")
            (numbers if label.isdecimal() else names).add(label)
        if len(numbers) > 1 or len(names) > 1:
            return _Entry(member, why=f"names several classes ({', '.join(sorted(numbers | names))})")
        if not names:
            return _Entry(member, next(iter(numbers), ""))
        (name,) = names
        if numbers:
            (number,) = numbers
            other, first = self._number_of.setdefault(name, (number, member))
            if other != number:
                return _Entry(member, why=f"gives '{name}' the number {number}, and {first} {other}")
        return _Entry(member, name)

    def by_image(self, images: Iterable[str], notices: list[str]) -> dict[str, str]:
        """Image -> class, "" without one.  images: their names in the shards.

        UserError when two members could be meant, or when the one that is meant cannot be used.
        """
        names = list(images)
        entries = self._exact[".json"].values()
        if not any(entry.label for entry in entries):  # facts about photos, one of them damaged: no labels are lost
            damaged = [entry.member for entry in entries if entry.why.startswith(_DAMAGED)]
            for member in damaged:
                del self._exact[".json"][without_suffix(member)]
                self._samples[".json"][_sample(member)].remove(member)
            self.unused += len(damaged)
        stems = {without_suffix(name) for name in names}
        labels = {name: self._of(name, stems, ".cls") or self._of(name, stems, ".json") for name in names}
        self._compare(names, labels, notices)
        texts = self._texts(names) if not any(labels.values()) else {}
        if any(texts.values()):
            labels = texts
        elif self._exact[".txt"]:
            self.unused += len(self._exact[".txt"])
            if not any(labels.values()):
                notices.append(
                    f"{len(self._exact['.txt'])} .txt members are taken for captions or boxes, not for labels"
                )
        for kind in (".json", ".txt"):
            if count := sum(bool(labels[name]) and self._from(name) == kind for name in names):
                notices.append(f"the labels of {plural(count, 'image')} are read from {kind} members")
        return self._one_name(labels, notices)

    def _one_name(self, labels: dict[str, str], notices: list[str]) -> dict[str, str]:
        """``labels`` with one name for a class: a number in several spellings is one, as for WebDataset, which reads
        ``.cls`` as an integer; and a number of some images is the name that ``.json`` members of others give it."""
        spelt: dict[str, set[str]] = {}
        for label in set(labels.values()):
            spelt.setdefault(number_in(label) or label, set()).add(label)
        if "-1" in spelt and "0" in spelt:
            notices.append("the label -1 is a class of its own: where it stands for no label, leave it out")
        other = {label: number for number, labels in spelt.items() if len(labels) > 1 for label in labels}
        if other:
            shown = "; ".join(" and ".join(map(repr, sorted(some))) for some in spelt.values() if len(some) > 1)
            notices.append(f"labels that are one number in several spellings are one class: {shown}")
        for name, (number, member) in self._number_of.items():
            same = spelt.get(number_in(number) or number, set())
            if name in spelt and same and sum(n == number for n, _ in self._number_of.values()) == 1:
                other |= dict.fromkeys(same, name)
                notices.append(f"the label {min(same)!r} is the class '{name}', as {member} says")
        return {image: other.get(label, label) for image, label in labels.items()}

    def _compare(self, images: list[str], labels: dict[str, str], notices: list[str]) -> None:
        """A notice where a ``.json`` member says another class than the ``.cls`` member of its image, both by name or
        both by number, and where members hold labels of no image."""
        differ = []
        for image in images:
            own, label = self._exact[".json"].get(without_suffix(image)), labels[image]
            if not own or not own.label or not label:
                continue
            numbers = number_in(own.label), number_in(label)
            if (numbers[0] is None) == (numbers[1] is None) and (numbers[0] or own.label) != (numbers[1] or label):
                differ.append((own, label))
        if differ:
            own, label = differ[0]
            notices.append(
                f"{plural(len(differ), 'image has', 'images have')} another class in .json than in .cls members "
                f"({own.member}: '{own.label}' and '{label}'); those of .cls are taken"
            )
        samples = {_sample(image) for image in images}
        known = samples | {without_suffix(image) for image in images}
        lone = [one.member for stem, one in self._exact[".cls"].items() if stem not in known]
        lone = [member for member in lone if _sample(member) not in samples]
        if lone:
            members = plural(len(lone), ".cls member belongs", ".cls members belong")
            notices.append(f"{members} to no image of the same shard ({lone[0]}): not used")

    def _from(self, image: str) -> str:
        """The kind of member that an image of its own name and a label has it from."""
        stem = without_suffix(image)
        return next((kind for kind, own in self._exact.items() if (entry := own.get(stem)) and entry.label), "")

    def _of(self, image: str, stems: Set[str], suffix: str) -> str:
        exact, sample = self._exact[suffix], _sample(image)
        entry = exact.get(without_suffix(image)) or exact.get(sample)
        if entry is None:
            members = self._samples[suffix].get(sample, [])
            if len(members) > 1:
                raise UserError(
                    f"{image} has no label of its own and two that could be meant: {members[0]} and {members[1]}; "
                    f"name its label {without_suffix(image)}{suffix}"
                )
            # stems: the label of one frame of a clip is not that of the others
            if not members or without_suffix(members[0]) in stems:
                return ""
            entry = exact[without_suffix(members[0])]
        if entry.why:
            raise UserError(
                f"{entry.member} {entry.why}, so that the class of {image} is not known; say it in "
                f"{without_suffix(image)}.cls"
            )
        return entry.label

    def _texts(self, images: list[str]) -> dict[str, str]:
        """Image -> class from texts, where they are classes: numbers, or short texts that come again and again."""
        exact = self._exact[".txt"]
        entries = [exact.get(without_suffix(image), _Entry("")) for image in images]
        texts = [one.label for one in entries]
        counts = Counter(texts)
        numbers = sum(number_in(text) is not None for text in texts)
        if numbers * 2 > len(texts) > numbers:  # most are, some are not
            image, odd = next((i, one) for i, one in zip(images, entries) if number_in(one.label) is None)
            raise UserError(
                f"{odd.member or without_suffix(image) + '.txt'} holds no number, and the .txt members of {numbers} "
                "other images do: if these are labels, give every image one; if not, take them out"
            )
        again = len(counts) * 2 <= len(texts) and min(counts.values()) > 1
        labels = bool(texts) and (numbers == len(texts) or (all(texts) and again)) and len(counts) > 1
        return dict(zip(images, texts if labels else [""] * len(texts)))


def without_suffix(member: str) -> str:
    """``clip03.0007`` of ``clip03.0007.png``."""
    return str(PurePosixPath(member).with_suffix(""))


def _sample(member: str) -> str:
    path = PurePosixPath(member)
    return str(path.parent / path.name.split(".")[0])


def _label(value: Any) -> str | None:
    """A class as text; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and value < 0):
        return None
    text = unicodedata.normalize("NFC", str(value).strip())
    return text if 0 < len(text) <= _LETTERS and "\n" not in text else None


def _from_text(member: str, data: bytes) -> _Entry:
    """A number or a name, perhaps in quotes, as JSON has it; a list of numbers is several classes, or none."""
    text = _text(data)
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if _SEVERAL.fullmatch(text):
        return _Entry(member, why=f"says {text[:60]!r}, which is not a single class")
    return _Entry(member, text)


def _may_be_class(text: str) -> bool:
    return 0 < len(text) <= _LETTERS and len(text.split()) <= _WORDS


def _text(data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
    # Invalid UTF-8 keeps its bytes apart: two classes must not become one.
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="backslashreplace")
    return unicodedata.normalize("NFC", text.strip(" \t\r\n\f\v\0"))
