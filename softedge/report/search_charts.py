"""The charts of the int8 search: its steps by answers and time, and the ranges of the layers that lose the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from softedge.report import svg, words
from softedge.report.charts import HALF, shortened
from softedge.report.placement import Box, place

Values = Mapping[str, Any]


def timed(taken: Sequence[Values]) -> list[Values]:
    """The steps with both an agreement and a measured time."""
    return [r for r in taken if words.is_number(r.get("agreement")) and words.is_number(r.get("time_over_fp32"))]


def steps(identity: str, width: float, taken: Sequence[Values]) -> Markup:
    """Agreement over time relative to fp32, one dot per step; rejected steps are hollow."""
    shown = timed(taken)
    height, left, right, top, bottom = (320.0 if width > HALF else 300.0), 58.0, width - 14, 40.0, 46.0
    ratios, agreement = [r["time_over_fp32"] for r in shown], [r["agreement"] for r in shown]
    x = svg.Scale(*svg.padded(min([*ratios, 0.95]), max([*ratios, 1.05]), share=0.1), left, right)
    low, high = svg.padded(min(agreement), max(agreement), least=0.02, share=0.15)
    y = svg.Scale(low, high, height - bottom, top)
    parts = [
        svg.y_axis(y, left, right, "same answers as fp32, selection images", lambda v: words.percent(v, 1)),
        svg.x_axis(x, height - bottom, "time relative to fp32 (left is faster)", lambda v: f"{v:g}"),
        svg.line(x(1.0), top, x(1.0), height - bottom, class_="gate"),
        svg.text(x(1.0) + 5, top + 10, "fp32", class_="tick"),
    ]
    marks = [(x(r), y(a), 6.0) for r, a in zip(ratios, agreement)]
    for (across, up, radius), entry in zip(marks, shown):
        kind = "dot accent" if entry.get("passed") else "dot accent not-passed"
        parts.append(svg.tag("circle", cx=across, cy=up, r=radius, class_=kind))
    labels = [str(r["step"]) for r in shown]
    sizes = [(svg.text_width(label, 13) + 4, 16.0) for label in labels]
    fp32 = Box(x(1.0) - 1, top, x(1.0) + 1, height - bottom)  # no name crosses the line, nor its own
    free = [fp32, Box(x(1.0), top - 2, x(1.0) + 9 + svg.text_width("fp32", 12), top + 14)]
    for label, box in zip(labels, place(marks, sizes, Box(left, top - 14, right, height - bottom), free)):
        parts.append(svg.text(box.left + 2, box.bottom - 4, label, class_="value"))
    about = "; ".join(
        f"{r['step']} {words.percent(r['agreement'], 1)} at {r['time_over_fp32']:.2f} × the time" for r in shown
    )
    return svg.chart(identity, width, height, "Same answers over time, by step", about, *parts)


def ranges(identity: str, width: float, layers: Sequence[Values], most: int = 10) -> Markup:
    """The calibrated input range of the layers that lose the most, and their largest weight as a mark."""
    known = [r for r in layers if all(words.is_number(r.get(key)) for key in ("low", "high", "widest", "alone_db"))]
    shown = sorted(known, key=lambda r: r["alone_db"])[:most]
    pitch, top, bottom = 24.0, 30.0, 40.0
    names = [words.layer_name(r) for r in shown]
    left = min(max(svg.text_width(name, 12) for name in names) + 12, width * 0.45)
    height = top + pitch * len(shown) + bottom
    ends = svg.padded(min(0.0, *(r["low"] for r in shown)), max(max(r["high"], r["widest"]) for r in shown), share=0.03)
    x = svg.Scale(*ends, left, width - 14)
    parts = [svg.text(0, 12, "line: range of the input as calibrated; dot: largest weight", class_="name")]
    for number, (name, row) in enumerate(zip(names, shown)):
        y = top + pitch * number + 10
        parts += [
            svg.text(0, y + 4, shortened(name, left - 10), class_="tick"),
            svg.line(x(row["low"]), y, x(row["high"]), y, class_="stem"),
            svg.line(x(row["low"]), y - 5, x(row["low"]), y + 5, class_="axis"),
            svg.line(x(row["high"]), y - 5, x(row["high"]), y + 5, class_="axis"),
            svg.tag("circle", cx=x(row["widest"]), cy=y, r=4.0, class_="dot accent"),
        ]
    parts.append(svg.x_axis(x, height - bottom, "value", lambda v: f"{v:g}"))
    about = "; ".join(
        f"{n}: input {r['low']:.3g} to {r['high']:.3g}, largest weight {r['widest']:.3g}" for n, r in zip(names, shown)
    )
    return svg.chart(identity, width, height, "Ranges of the layers that lose the most", about, *parts)
