"""``labels.csv`` beside the images: what a person decided about single images, in place of what the folders say.

``softedge review`` writes it; a table of one's own with the columns ``name`` and ``label`` is read as well.
"""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from softedge.data.inventory import printable
from softedge.data.layouts import Parts
from softedge.errors import UserError
from softedge.files import read_text
from softedge.run import write_text

FILE = "labels.csv"
COLUMNS = ("name", "label", "state", "time")
LABEL, WRONG, DUPLICATE, SKIP = STATES = ("label", "wrong", "duplicate", "skip")
SET_ASIDE = {WRONG: "marked as wrong", DUPLICATE: "marked as duplicates"}  # state -> why it takes no part
LONGEST = 100  # letters of a class name

Labelled = list[tuple[Parts, str | None]]  # path below the root, class


@dataclass(frozen=True)
class Decision:
    """state: "label" (the image is ``label``), "wrong" or "duplicate" (it takes no part), "skip" (as the folder says).

    time: when, as ISO 8601 in UTC; empty where nothing says.  more: the columns that are somebody else's.
    """

    state: str
    label: str = ""
    time: str = ""
    more: Mapping[str, str] = field(default_factory=dict, compare=False)


def read(root: Path) -> dict[str, Decision] | None:
    """Image name -> decision; {} without a file, None for a file of that name with other columns.

    UserError for a damaged file, a state that is none, and a name with two different labels.
    """
    path = root / FILE
    try:
        rows = list(_rows(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); fix it, or move it away and label again") from error
    if not rows or not {"name", "label"} <= set(rows[0]):
        return None
    columns = rows[0]
    decisions: dict[str, Decision] = {}
    above = (f"{root.as_posix()}/", f"{root.resolve().as_posix()}/", "./")
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        if len(row) != len(columns):
            raise UserError(f"{path}, row {number}: {len(row)} values for {len(columns)} columns; fix the row")
        values = dict(zip(columns, row))
        name = _name(root, above, values["name"].strip())
        decision = _decision(path, number, values)
        if decision is None:
            continue
        if (known := decisions.get(name)) and (known.state, known.label) != (decision.state, decision.label):
            raise UserError(
                f"{path} contradicts itself: row {number} says {_said(decision)} about {name}, an earlier one "
                f"{_said(known)}; delete one of them"
            )
        decisions[name] = decision
    return decisions


def _name(root: Path, above: Sequence[str], written: str) -> str:
    """A name as softedge has it, of one that a spreadsheet or a script wrote: with backslashes, or from the root on.

    above: what the root may be called there.
    """
    name = written
    if "\\" in name and not os.path.exists(root / name):
        name = name.replace("\\", "/")
    for prefix in above:
        name = name.removeprefix(prefix)
    return name


def _rows(path: Path) -> list[list[str]]:
    text = read_text(path)  # spreadsheets begin with a mark
    first = text.partition("\n")[0]
    separator = ";" if first.count(";") > first.count(",") else ","  # spreadsheets where the comma is the decimal point
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))


def _decision(path: Path, number: int, values: dict[str, str]) -> Decision | None:
    """One row; None where it decides nothing."""
    label = class_name(values["label"])
    state = values.get("state", "").strip() or (LABEL if label else "")
    if not state:
        return None
    if state not in STATES:
        raise UserError(f"{path}, row {number}: the state '{state}' is not one of {', '.join(STATES)}")
    if state == LABEL and not label:
        raise UserError(f"{path}, row {number}: the state is 'label', and the label is empty")
    more = {key: value for key, value in values.items() if key not in COLUMNS}
    return Decision(state, label if state == LABEL else "", values.get("time", ""), more)


def class_name(text: str) -> str:
    """A class as it is compared: composed letters, no spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def _said(decision: Decision) -> str:
    return f"'{decision.label}'" if decision.state == LABEL else decision.state


def write(root: Path, decisions: Mapping[str, Decision]) -> None:
    """Write ``labels.csv``: whole or not at all, on the disk when this returns."""
    columns = [*COLUMNS, *dict.fromkeys(key for decision in decisions.values() for key in decision.more)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for name, entry in sorted(decisions.items()):
        writer.writerow({"name": name, "label": entry.label, "state": entry.state, "time": entry.time, **entry.more})
    write_text(root / FILE, out.getvalue())


@dataclass
class Applied:
    """groups: split -> images and classes.  ignored: why -> how many images take no part.  notices: for a person."""

    groups: dict[str, Labelled]
    ignored: dict[str, int]
    notices: list[str]


def apply(
    root: Path,
    groups: Mapping[str, Labelled],
    decisions: Mapping[str, Decision],
    names: Collection[str],
    folder_of: Mapping[str, str],
) -> Applied:
    """Put decisions in place of the folders' labels: a labelled image of no class comes to the training images.

    names: of all images below ``root``.  folder_of: class -> folder, where they are called differently.
    UserError where nothing is left to work on.
    """
    out: dict[str, Labelled] = {split: [] for split in groups}
    aside: Counter[str] = Counter()
    labelled = moved = 0
    for split, images in groups.items():
        for path, folder in images:
            decision = decisions.get(printable("/".join(path)))
            if decision is not None and decision.state in SET_ASIDE:
                aside[decision.state] += 1
            elif decision is not None and decision.state == LABEL:
                label = folder_of.get(decision.label, decision.label)
                labelled += 1
                moved += folder is not None and folder != label
                out.setdefault("train" if split == "unlabelled" else split, []).append((path, label))
            else:
                out[split].append((path, folder))
    _check(root, out)
    strangers = len(decisions.keys() - set(names))
    parts = [f"{labelled:,} labels, {moved:,} of them different from the folders'"] if labelled else []
    parts += [f"{aside[state]:,} images {why} and set aside" for state, why in SET_ASIDE.items() if aside[state]]
    parts += [f"{strangers:,} rows about images that are not here"] if strangers else []
    ignored = {f"{why} in {FILE}": aside[state] for state, why in SET_ASIDE.items() if aside[state]}
    return Applied(out, ignored, [f"{FILE}: {'; '.join(parts)}"] if parts else [])


def _check(root: Path, groups: Mapping[str, Sequence[tuple[Parts, str | None]]]) -> None:
    if not any(groups.get(split) for split in ("train", "unlabelled")):
        raise UserError(f"{root / FILE} sets every training image aside; change it with: softedge review {root}")
    known = {label for _, label in groups.get("train", []) if label is not None}
    tested = {label for _, label in groups.get("test", []) if label is not None}
    if len(known) == 1:
        raise UserError(
            f"with {root / FILE} there is only one class ('{next(iter(known))}'); label images of another one: "
            f"softedge review {root}"
        )
    if tested - known:
        raise UserError(
            f"with {root / FILE} the test images have classes without a training image "
            f"({', '.join(sorted(tested - known)[:5])}); label training images of them: softedge review {root}"
        )
