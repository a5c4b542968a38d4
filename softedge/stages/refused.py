"""What refused files have in common: one line for each reason, with every file that it holds for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]\w|\w)")


def by_reason(lines: Iterable[str]) -> list[str]:
    """``["a: x 0.1; y", "b: x 0.2"]`` -> ``["a, b: x 0.1 to 0.2", "a: y"]``.

    lines: "onnx-int8: reason; reason", or a sentence about one file, "onnx-int8 was not made: ...", that stays whole.
    Reasons that differ in their numbers alone are one, with the range of each number.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        name, sign, rest = line.partition(" ")
        reasons = [f": {reason}" for reason in _parts(rest)] if name.endswith(":") else [sign + rest]
        for reason in reasons:
            found.setdefault(_NUMBER.sub("#", reason), []).append((name.rstrip(":"), reason))
    return [_line([*dict.fromkeys(name for name, _ in of)], [reason for _, reason in of]) for of in found.values()]


def _line(names: Sequence[str], reasons: Sequence[str]) -> str:
    columns = zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = iter([_range(column) for column in columns])
    text = _NUMBER.sub(lambda _: next(ranges), reasons[0])
    return ", ".join(names) + (text.replace(" was not ", " were not ", 1) if len(names) > 1 else text)


def _range(numbers: Sequence[str]) -> str:
    least, most = min(numbers, key=float), max(numbers, key=float)
    return least if float(least) == float(most) else f"{least} to {most}"


def _parts(reasons: str) -> list[str]:
    """The reasons between semicolons; one in brackets belongs to the advice there."""
    parts, depth = [""], 0
    for piece in re.split(r"(; |[()])", reasons):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "; " and depth <= 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts
