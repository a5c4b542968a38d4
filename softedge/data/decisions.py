"""``labels.csv`` beside the images: what a person decided about single images, in place of what the folders say.

``softedge review`` writes it; a table of one's own with the columns ``name`` and ``label`` is read as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softedge.data import label_table
from softedge.data.inventory import printable
from softedge.data.label_table import FILE, LABEL, Row, Table, class_name
from softedge.data.layouts import Parts
from softedge.errors import UserError, quoted
from softedge.progress import plural

STATES = (LABEL, "wrong", "duplicate", "skip")
WRONG, DUPLICATE, SKIP = STATES[1:]
SET_ASIDE = {WRONG: "marked as wrong", DUPLICATE: "marked as duplicate"}  # state -> why it takes no part
LONGEST = 100  # letters of a class name

Labelled = list[tuple[Parts, str | None]]  # path below the root, class


@dataclass(frozen=True)
class Decision:
    """state: "label" (the image is ``label``), "wrong" or "duplicate" (it takes no part), "skip" (as the folder says).

    time: when, as ISO 8601 in UTC; empty where nothing says.
    """

    state: str
    label: str = ""
    time: str = ""

    def says(self) -> str:
        """The class in quotes, or the state."""
        return f"'{self.label}'" if self.state == LABEL else self.state


def read(root: Path) -> dict[str, Decision]:
    """Image name -> decision; {} without a file.

    UserError for a file that is no table of labels, a state that is none, and an image with two different labels.
    """
    return of_table(root, label_table.read(root))


def of_table(root: Path, table: Table) -> dict[str, Decision]:
    """``read`` of a table that was read from ``root``."""
    path = root / FILE
    decisions: dict[str, Decision] = {}
    lines: dict[str, int] = {}
    for row in table.rows:
        decision = _decision(path, table, row)
        if decision is None:
            continue
        known = decisions.setdefault(row.name, decision)
        if known.says() != decision.says():
            raise UserError(
                f"{path} contradicts itself about {row.name}: line {lines[row.name]} says {known.says()}, line "
                f"{row.line} {decision.says()}; correct one of them, or delete it"
            )
        lines.setdefault(row.name, row.line)
    return decisions


def _decision(path: Path, table: Table, row: Row) -> Decision | None:
    """One row; None where it decides nothing."""
    label, state = class_name(table.value(row, "label")), table.value(row, "state")
    state = state or (LABEL if label else "")
    if not state:
        return None
    if state not in STATES:
        raise UserError(f"{path}, line {row.line}: the state '{state}' is not one of {', '.join(STATES)}")
    if state == LABEL and not label:
        raise UserError(f"{path}, line {row.line}: the state is 'label', and the label is empty")
    return Decision(state, label if state == LABEL else "", table.value(row, "time"))


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
    parts = [f"{plural(labelled, 'label')}, {moved:,} of them different from the folders'"] if labelled else []
    parts += [
        f"{plural(aside[state], 'image')} {why} and set aside" for state, why in SET_ASIDE.items() if aside[state]
    ]
    parts += (
        [f"{plural(strangers, 'row about an image that is', 'rows about images that are')} not here"]
        if strangers
        else []
    )
    ignored = {f"{why} in {FILE}": aside[state] for state, why in SET_ASIDE.items() if aside[state]}
    return Applied(out, ignored, [f"{FILE}: {'; '.join(parts)}"] if parts else [])


def _check(root: Path, groups: Mapping[str, Sequence[tuple[Parts, str | None]]]) -> None:
    if not any(groups.get(split) for split in ("train", "unlabelled")):
        raise UserError(
            f"{root / FILE} sets every training image aside; change it with: softedge review {quoted(root)}"
        )
    known = {label for _, label in groups.get("train", []) if label is not None}
    tested = {label for _, label in groups.get("test", []) if label is not None}
    if tested - known:
        raise UserError(
            f"with {root / FILE} the test images have classes without a training image "
            f"({', '.join(sorted(tested - known)[:5])}); label training images of them: softedge review {quoted(root)}"
        )
