"""Near-duplicates by name: where each lies, what label it has, what that means; as a table for a spreadsheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softedge.data.near_copies import Pair
from softedge.data.splitting import Item
from softedge.files import csv_table
from softedge.progress import plural

FILE = "near_copies.csv"
KINDS = {
    "leak": "a training image and a test image, the training image set aside",
    "two labels": "two classes, both kept: look at them",
    "same": "the same class, on one side of the split",
}


@dataclass(frozen=True)
class NearPair:
    """kind: a key of ``KINDS``.  split: after splitting.  label: the class, "" for none.  similarity: up to 1."""

    kind: str
    similarity: float
    name: str
    split: str
    label: str
    other_name: str
    other_split: str
    other_label: str


def described(pairs: Sequence[Pair], items: Sequence[Item], classes: Sequence[str]) -> list[NearPair]:
    """Leaks first, then pairs of two labels, the most similar first.  items: after the split."""
    rows = []
    for pair in pairs:
        a, b = items[pair.first], items[pair.second]
        labels = [classes[item.label] if item.label >= 0 else "" for item in (a, b)]
        kind = "same"
        if "" not in labels and labels[0] != labels[1]:
            kind = "two labels"
        if "duplicate" in (a.split, b.split):
            kind = "leak"
        rows.append(NearPair(kind, pair.similarity, a.name, a.split, labels[0], b.name, b.split, labels[1]))
    order = list(KINDS)
    return sorted(rows, key=lambda row: (order.index(row.kind), -row.similarity, row.name, row.other_name))


def table(pairs: Sequence[NearPair]) -> str:
    """All pairs as CSV with a header."""
    return csv_table(NearPair, pairs)


def counts(pairs: Sequence[NearPair]) -> dict[str, int]:
    """Kind -> pairs, the kinds there are."""
    number = Counter(pair.kind for pair in pairs)
    return {kind: number[kind] for kind in KINDS if number[kind]}


def sentence(number: Mapping[str, int]) -> str:
    """The counts in words: "3 pairs of near-duplicates: 1 leak (...), 2 same (...)"."""
    parts = [f"{count:,} {kind} ({KINDS[kind]})" for kind, count in number.items()]
    pairs = plural(sum(number.values()), "pair", "pairs")
    return f"{pairs} of near-duplicates: {'; '.join(parts)}"
