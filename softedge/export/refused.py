"""What refused files have in common: one line for each reason, with every file that it holds for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]\w|\w)")

_PLURALS = {
    " was not ": " were not ",
    " is missing; bring it back, or make it again": " are missing; bring them back, or make them again",
}


def by_reason(lines: Iterable[str]) -> list[str]:
    """``["a: x 0.1; y", "b: x 0.2"]`` -> ``["a, b: x 0.1 to 0.2", "a: y"]``.

    lines: "onnx-int8: reason; reason", or a sentence about one file, "onnx-int8 was not made: ...", that stays whole.
    Reasons that differ in their numbers alone are one, with the range of each number.
    """
    found = []
    for line in lines:
        name, sign, rest = line.partition(" ")
        of = [f": {reason}" for reason in reasons(rest)] if name.endswith(":") else [sign + rest]
        found += [(name.rstrip(":"), reason) for reason in of]
    return [_line(names, reason) for names, reason in grouped(found)]


def grouped(found: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """(file, reason) -> the files of each reason; those that differ in their numbers alone are one, with the ranges."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, reason in found:
        groups.setdefault(_NUMBER.sub("#", reason), []).append((name, reason))
    return [([*dict.fromkeys(name for name, _ in of)], _with_ranges([why for _, why in of])) for of in groups.values()]


def _line(names: Sequence[str], reason: str) -> str:
    if len(names) > 1:
        for one, many in _PLURALS.items():
            reason = reason.replace(one, many, 1)
    return ", ".join(names) + reason


def _with_ranges(reasons: Sequence[str]) -> str:
    columns = zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = iter([_range(column) for column in columns])
    return _NUMBER.sub(lambda _: next(ranges), reasons[0])


def _range(numbers: Sequence[str]) -> str:
    least, most = min(numbers, key=float), max(numbers, key=float)
    return least if float(least) == float(most) else f"{least} to {most}"


def reasons(text: str) -> list[str]:
    """The reasons of a file, between semicolons; one in brackets belongs to the advice there."""
    parts, depth = [""], 0
    for piece in re.split(r"(; |[()])", text):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "; " and depth <= 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts
