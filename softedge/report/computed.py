"""Whose accuracy stands beside a latency: the check's, where the device computed what was checked, else its own.

Pure functions of a row of the files table and one entry of its ``devices``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from softedge.report import words
from softedge.report.few import FEW_IMAGES, known_to

Row = Mapping[str, Any]

# Where no gate says otherwise: a device that answers differently more often is not running the file that was checked.
SAME_ANSWERS = 0.98

_HALF = re.compile(r"\bb?f16\b")


def half(timing: Row) -> str:
    """The 16-bit type that a device computed in, "bf16" or "f16"; "" where it did not, or does not say."""
    found = _HALF.search(str(timing.get("effective_precision") or ""))
    return found.group() if found else ""


def otherwise(timing: Row) -> bool:
    """Whether it is known that a device did not compute what was checked: by its precision, or by its answers."""
    return bool(half(timing)) or timing.get("agreement_local", 1.0) < 1.0


def top1(row: Row, timing: Row) -> float | None:
    """The accuracy of the computation that was timed; the check's where no other was measured."""
    value = timing.get("top1") if otherwise(timing) else None
    return row.get("top1") if value is None else value


def accuracy(row: Row, timing: Row) -> str:
    """Top-1 of the computation that was timed, in the words of the verdict; "" where images have no labels."""
    if row.get("top1") is None:
        return f"computed in {half(timing)}, answers not compared" if half(timing) and not _answered(timing) else ""
    if otherwise(timing) and timing.get("top1") is not None:
        computed = f", computed in {half(timing)}" if half(timing) else ""
        there = f"top-1 {words.percent(timing['top1'])}{_on(timing.get('n_images'))} there{computed}"
        same = timing.get("agreement_local")
        answers = f", {words.percent(same)} of the answers the same" if same is not None else ", agreement not known"
        return f"{there} (in the check {words.percent(row['top1'])}{answers})"
    if (half(timing) or timing.get("measured_elsewhere")) and not _answered(timing):
        missing = f"not measured in {half(timing)}" if half(timing) else "not measured there"
        return f"top-1 {words.percent(row['top1'])}{_on(row.get('n'))} in the check, {missing}"
    fp32 = f" ({_against_fp32(row)})" if row.get("drop") is not None else ""
    return f"top-1 {words.percent(row['top1'])}{_on(row.get('n'))}{fp32}"


def note(timing: Row) -> str:
    """What a latency in a table needs beside it: "in bf16, top-1 91.0 %"; "" where the check's accuracy is its own."""
    value = timing.get("top1")
    known = f"top-1 {words.percent(value)}" if value is not None else "accuracy not measured"
    if half(timing):
        return f"in {half(timing)}, {known}"
    return f"{known} there" if otherwise(timing) and value is not None else ""


def refused(row: Row, timing: Row) -> str:
    """Why a file that passed the gate is not the one to ship there; "" where nothing speaks against it.

    Its answers are held to the gates of the check, with the same allowance for few images, and its accuracy to MLPerf's
    98 % of fp32's on the device.
    """
    gate, same = row.get("gate_agreement", SAME_ANSWERS), timing.get("agreement_local")
    computed = f", computed in {half(timing)}" if half(timing) else ""
    few = _one_of_few(timing, gate)
    if same is not None and same < gate and not few:
        return f"{words.percent(same)} are those of the check{computed}; the gate asks for {words.percent(gate)}"
    value, floor = timing.get("top1"), row.get("gate_floor") if timing.get("n_images") == row.get("n") else None
    lost = value is not None and floor is not None and value < floor - 1e-9
    if lost and otherwise(timing) and not few:
        return f"top-1 {words.percent(timing['top1'])}{computed}; the gate asks for {words.percent(row['gate_floor'])}"
    quality = timing.get("quality") or {}
    if not (quality.get("passed") or {}).get("98%", True) and same != 1.0 and not _one_lost(timing, quality):
        ratio = quality.get("ratio")
        return f"{words.percent(ratio)} of fp32's accuracy{computed}" if ratio is not None else "below 98 % of fp32"
    return ""


def _one_of_few(timing: Row, gate: float) -> bool:
    """Whether one answer of few changed: as in the check, it refuses no file, unless the gate allows none."""
    same, n = timing.get("agreement_local"), timing.get("n_compared") or 0
    return same is not None and round((1 - same) * n) == 1 < n < FEW_IMAGES and gate < 1


def _one_lost(timing: Row, quality: Row) -> bool:
    """The same of the accuracy: one right answer fewer than fp32 of few images."""
    n, before, now = timing.get("n_images") or 0, quality.get("top1_fp32"), timing.get("top1")
    return before is not None and now is not None and round((before - now) * n) == 1 < n < FEW_IMAGES


def _answered(timing: Row) -> bool:
    return timing.get("top1") is not None or timing.get("agreement_local") is not None


def _on(n: int | None) -> str:
    return f" on {words.count(n)} test images" if n else " on the test images"


def _against_fp32(row: Row) -> str:
    """What was lost, and of few images what they can show."""
    gained = row["drop"] < 0
    said = f"{words.points(abs(row['drop'])).lstrip('+')} points {'above' if gained else 'below'} fp32"
    same = round(abs(row["drop"]) * 100, 1) == 0
    if not 0 < (row.get("n") or 0) < FEW_IMAGES:
        return "no accuracy lost" if same else said
    shown = f"so few show an accuracy to about ± {known_to(row['top1'], row['n'])} points"
    return f"{'none lost on these' if same else said}; {shown}"
