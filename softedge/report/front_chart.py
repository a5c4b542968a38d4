"""The accuracy-latency front before training: a linear layer on frozen features over p90 of what was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from softedge.report import limits_chart, svg, words
from softedge.report.placement import Box, place

Values = Mapping[str, Any]


def judged(run: dict[str, Any]) -> list[Values]:
    """The fits of the plan with time and accuracy; empty where they are too few, or the chosen one has no accuracy."""
    fits = [fit for fit in limits_chart.timed(run) if has_accuracy(fit)]
    return fits if len(fits) > 1 and limits_chart.chosen(run) in fits else []


def has_accuracy(fit: Values) -> bool:
    values: tuple[Any, ...] = fit.get("top1"), fit.get("images")
    return all(map(words.is_number, values)) and 0 <= values[0] <= 1 and values[1] > 0


def best(fits: Sequence[Values]) -> list[Values]:
    """Those than which no other is both as fast and as accurate, and better in one of these; the fastest first."""
    front: list[Values] = []
    for fit in sorted(fits, key=lambda fit: (fit["p90_ms"], -fit["top1"])):
        if not front or fit["top1"] > front[-1]["top1"]:
            front.append(fit)
    return front


def caption(run: dict[str, Any]) -> str:
    """How it was measured, and what is not drawn."""
    fits = judged(run)
    asked = max(fit["images"] for fit in fits)
    error = max(math.sqrt(fit["top1"] * (1 - fit["top1"]) / fit["images"]) for fit in fits)
    said = (
        f"Before training: a linear layer on frozen features of the starting weights, {words.count(asked)} training "
        f"images held out in turn (standard error {words.points(error).lstrip('+')} points); fine-tuning reaches more. "
        f"Line: nothing else is both faster and more accurate. {limits_chart.caption(run)}"
    )
    missing = [f"{fit['network']} at {fit['size']} pixels" for fit in limits_chart.timed(run) if not has_accuracy(fit)]
    return f"{said} Not drawn, without starting weights: {', '.join(missing)}." if missing else said


def draw(identity: str, width: float, fits: Sequence[Values], limit: float, ring: Values | None) -> Markup:
    """Top-1 over p90, the limit as a vertical line.  A dot has its pixels beside it, its colour is the network's."""
    height, left, right, top, bottom = 330.0, 52.0, width - 14, 40.0, 46.0
    p90, top1 = [fit["p90_ms"] for fit in fits], [fit["top1"] for fit in fits]
    x = svg.Scale(*svg.log_padded(min(*p90, limit or p90[0]), max(*p90, limit), 2.0, 1.18), left, right, log=True)
    y = svg.Scale(*svg.padded(min(top1), max(top1), least=0.05, share=0.12), height - bottom, top)
    wide = width > 500
    name = ("p90 latency, ms (logarithmic)" if wide else "p90, ms") + (
        f"; dashed: limit {words.milliseconds(limit)}" if limit else ""
    )
    parts = [
        svg.y_axis(y, left, right, "top-1 before training; numbers: pixels", lambda value: words.percent(value, 0), 5),
        svg.x_axis(x, height - bottom, name, wanted=7 if wide else 4),
    ]
    taken = []
    if limit:
        parts.append(svg.line(x(limit), top, x(limit), height - bottom, class_="gate"))
        taken.append(Box(x(limit) - 1, top, x(limit) + 1, height - bottom))
    front = [(x(fit["p90_ms"]), y(fit["top1"])) for fit in best(fits)]
    if len(front) > 1:
        parts.append(svg.path(front, class_="line front"))
        taken += _along(front)
    marks = [(x(fit["p90_ms"]), y(fit["top1"]), 10.0 if fit == ring else 6.0) for fit in fits]
    networks = list(dict.fromkeys(fit["network"] for fit in fits))
    colours = [f"line-{networks.index(fit['network']) % 4}" for fit in fits]
    for fit, (across, down, _), colour in zip(fits, marks, colours):
        kind = f"dot dot-{colour}" + ("" if fit.get("met") else " not-passed")
        parts.append(svg.tag("circle", cx=across, cy=down, r=5.0, class_=kind))
        if fit == ring:
            parts.append(svg.tag("circle", cx=across, cy=down, r=9.0, class_="halo"))
    legend = _legend(networks, marks, Box(left + 8, top + 2, right, height - bottom - 6))
    for number, (network, box) in enumerate(zip(networks, legend)):
        kind = f"label haloed ink-line-{number % 4}"
        parts.append(svg.text(box.left, box.bottom - 4, network, class_=kind))
    labels = [str(fit["size"]) for fit in fits]
    sizes = [(svg.text_width(label, 14) + 2, 16.0) for label in labels]
    frame = Box(left, top - 6, right, height - bottom)
    for label, box, colour in zip(labels, place(marks, sizes, frame, [*taken, *legend]), colours):
        middle = (box.left + box.right) / 2
        parts.append(svg.text(middle, box.bottom - 4, label, class_=f"label middle haloed ink-{colour}"))
    about = "; ".join(
        f"{fit['network']} at {fit['size']} pixels {words.percent(fit['top1'])}, {words.milliseconds(fit['p90_ms'])}, "
        f"{'met' if fit.get('met') else 'not met'}"
        for fit in fits
    )
    return svg.chart(identity, width, height, "Accuracy over p90 latency, before training", about, *parts)


def _along(points: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes on the line through the points, for labels to keep off."""
    boxes = []
    for (x, y), (end_x, end_y) in pairwise(points):
        steps = max(1, round(math.hypot(end_x - x, end_y - y) / 6))
        for step in range(steps + 1):
            across, down = x + (end_x - x) * step / steps, y + (end_y - y) * step / steps
            boxes.append(Box(across - 1, down - 1, across + 1, down + 1))
    return boxes


def _legend(names: Sequence[str], marks: Sequence[tuple[float, float, float]], frame: Box) -> list[Box]:
    """A row for each name, at the lower right or the upper left: accuracy rises with time, and few dots are there."""
    width, height = max(svg.text_width(name, 14) for name in names), 18.0 * len(names)
    corners = [
        Box(frame.right - width, frame.bottom - height, frame.right, frame.bottom),
        Box(frame.left, frame.top, frame.left + width, frame.top + height),
    ]
    dots = [Box(x - radius, y - radius, x + radius, y + radius) for x, y, radius in marks]
    corner = min(corners, key=lambda corner: sum(corner.overlap(dot) for dot in dots))
    rows = range(len(names))
    return [Box(corner.left, corner.top + 18 * row, corner.right, corner.top + 18 * (row + 1)) for row in rows]
