"""Which of several devices the headline is about, and why: a pure function of the numbers in the files table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from softedge.records import DISTURBED
from softedge.report import words
from softedge.report.devices import KINDS

Row = Mapping[str, Any]


def order(files: Sequence[Row], devices: Mapping[str, str], kinds: Mapping[str, str]) -> tuple[list[str], str]:
    """The devices with the one for the headline first, and why it is the first.

    A device whose measurement can be trusted comes before one whose cannot; of those, what is most like the place where
    the app will run (``devices.KINDS``); of those, the one that was given first.
    devices: name -> how to call it in a sentence.
    """
    known = {device: kinds.get(device, KINDS[0]) for device in devices}
    doubts = {device: doubt(files, device) for device in devices}
    sorted_ = sorted(devices, key=lambda device: (bool(doubts[device]), KINDS.index(known[device])))
    return sorted_, _why_first(sorted_, devices, known, doubts)


def doubt(files: Sequence[Row], device: str) -> str:
    """Why the latencies of a device cannot be the headline; empty when they do."""
    timings = [row["devices"][device] for row in files if row["gate"] == "passed" and _timed(row, device)]
    if not timings:
        return "no file that ran there passed the gate"
    if not any(timing.get("valid", True) for timing in timings):
        return "its latencies are not valid"
    ratios = [timing["p90_ms"] / timing["p50_ms"] for timing in timings if timing.get("p50_ms")]
    if ratios and statistics.median(ratios) > DISTURBED:
        return f"its measurement was disturbed (p90 {words.times(statistics.median(ratios))} p50)"
    return ""


def _why_first(
    order: Sequence[str], devices: Mapping[str, str], kinds: Mapping[str, str], doubts: Mapping[str, str]
) -> str:
    """In a sentence; empty for one device."""
    if len(order) < 2:
        return ""
    first = order[0]
    demoted = [
        f"{devices[device]} is closer to where an app runs, but {doubts[device]}"
        for device in order[1:]
        if doubts[device] and not doubts[first] and KINDS.index(kinds[device]) < KINDS.index(kinds[first])
    ]
    if demoted:
        return f"{devices[first]} comes first because its measurement is sound; {'; '.join(demoted)}."
    if doubts[first]:
        return f"{devices[first]} comes first, but no device gave a sound measurement: {doubts[first]}."
    if kinds[first] == KINDS[0] and any(kinds[device] != KINDS[0] for device in order[1:]):
        return f"{devices[first]} comes first because it is a separate device, not this computer."
    others = [device for device in order[1:] if doubts[device]]
    if others:
        reasons = "; ".join(f"{devices[device]} was not: {doubts[device]}" for device in others)
        return f"{devices[first]} comes first because its measurement is sound; {reasons}."
    if any(kinds[device] != kinds[first] for device in order[1:]):
        return f"No phone or board was measured; {devices[first]} comes first of the others."
    return f"{devices[first]} comes first of the devices that were measured equally well."


def _timed(row: Row, device: str) -> bool:
    return (row["devices"].get(device) or {}).get("p90_ms") is not None
