"""How sure it is that an int8 file which passed the gate keeps the answers of fp32.

The gate counts changed answers on the test images; few of these say little.  The int8 search asks more images, apart
from them (``quantize.selection``), and says of each file whether it is sure of it: ``sure`` of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softedge.records import SEARCHED
from softedge.report import words
from softedge.report.computed import SAME_ANSWERS
from softedge.report.few import FEW_IMAGES, interval

Row = Mapping[str, Any]


def left_aside(pool: Sequence[Row]) -> list[Row]:
    """Of files that passed on few test images, those that the search was not sure of, where the one that it made
    instead, and was sure of, is among them: no measurement on the test images decides between the two."""
    sure = {row["artifact"] for row in pool if row.get("sure")}
    return [
        row
        for row in pool
        if row.get("sure") is False and (row.get("n") or 0) < FEW_IMAGES and f"{row['artifact']}{SEARCHED}" in sure
    ]


def why_left_aside(rows: Sequence[Row]) -> str:
    """A clause; "" without any."""
    if not rows:
        return ""
    names = words.listing([f"{words.artifact_name(row['artifact'])}{_shown(row, ' ({})')}" for row in rows])
    others = words.listing([words.artifact_name(f"{row['artifact']}{SEARCHED}") for row in rows])
    return f"the int8 search was not sure of {names}, and was of {others}"


def rests_on(row: Row) -> str:
    """What the verdict on a file rests on, where neither the search nor the test images are sure of it; else ""."""
    if row.get("sure") is not False:
        return ""
    agreement, n = row.get("agreement"), row.get("n")
    if agreement is not None and n and interval(agreement, n)[0] >= row.get("gate_agreement", SAME_ANSWERS):
        return ""
    return f"though the int8 search was not sure of it{_shown(row, ': {}')}"


def _shown(row: Row, within: str) -> str:
    """The agreement on the test images with its interval, ``within`` a pattern; "" where none was counted."""
    agreement, n = row.get("agreement"), row.get("n")
    if agreement is None or not n:
        return ""
    low, high = interval(agreement, n)
    images = words.plural(n, "test image")
    return within.format(
        f"agreement {words.percent(agreement)} of {images}, 95 % interval {100 * low:.0f} to {words.percent(high, 0)}"
    )
