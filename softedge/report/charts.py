"""The charts of the files. Each takes plain values and a width, and gives one accessible inline SVG.

Every chart is drawn twice, for a desk and for a phone: shrinking one drawing would shrink its letters too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from softedge import registry
from softedge.report import computed, svg, words
from softedge.report.placement import Box, place

WIDE, HALF, NARROW = 940.0, 420.0, 335.0
COLOURS = 7  # of formats in report.css; those beyond are grey

Values = Mapping[str, Any]


def both(draw: Any, identity: str, *arguments: Any, wide: float = WIDE, **options: Any) -> Markup:
    """The drawing for a desk and the one for a phone; the style sheet shows one of them."""
    return Markup('<div class="picture wide">{}</div><div class="picture narrow">{}</div>').format(
        draw(identity, wide, *arguments, **options), draw(f"{identity}-narrow", NARROW, *arguments, **options)
    )


def accuracy_latency(identity: str, width: float, rows: Sequence[Values], device: str, chosen: str = "") -> Markup:
    """Top-1 over p90 of one device, one dot per file, its area the file size; the gate's floor as a line."""
    shown = [r for r in rows if r.get("top1") is not None and r["devices"].get(device, {}).get("p90_ms")]
    height, left, right, top, bottom = (370.0 if width > HALF else 330.0), 58.0, width - 14, 40.0, 46.0
    p90 = [r["devices"][device]["p90_ms"] for r in shown]
    top1 = [computed.top1(r, r["devices"][device]) or 0.0 for r in shown]
    x = svg.Scale(*svg.log_padded(min(p90), max(p90), 2.0, 1.18), left, right, log=True)
    floor = _floor(shown)
    low, high = svg.padded(min([*top1, *floor]), min(1.0, max(top1)), least=0.025, share=0.12)
    y = svg.Scale(low, high, height - bottom, top)
    biggest = max(max(r.get("size_bytes") or 1, 1) for r in shown)
    marks, labels, sizes = [], [], []
    for row, accuracy in zip(shown, top1):
        radius = 4 + 8 * math.sqrt(max(row.get("size_bytes") or 0, 0) / biggest)
        halo = 5 if row["artifact"] == chosen else 0
        marks.append((x(row["devices"][device]["p90_ms"]), y(accuracy), radius + halo))
        labels.append(words.artifact_name(row["artifact"]))
        sizes.append((svg.text_width(labels[-1], 14 if halo else 13) + 4, 16.0))
    frame = Box(left, top - 14, right, height - bottom)
    parts = [
        svg.y_axis(y, left, right, "top-1 on the test images", _percent_ticks(y), 5 if width > HALF else 4),
        svg.x_axis(
            x, height - bottom, "p90 latency, ms (logarithmic; left is faster)", wanted=7 if width > HALF else 4
        ),
    ]
    for value in floor[:1]:
        parts.append(svg.line(left, y(value), right, y(value), class_="gate"))
        parts.append(svg.text(right, y(value) + 15, "gate: files below must not ship", class_="tick end"))
    order = sorted(range(len(shown)), key=lambda i: -marks[i][2])
    for i in order:
        kind = f"dot {series(shown[i]['target'])} {shown[i]['precision']}"
        if shown[i]["gate"] != "passed":
            kind += " not-passed"
        if shown[i]["artifact"] == chosen:
            parts.append(svg.tag("circle", cx=marks[i][0], cy=marks[i][1], r=marks[i][2] - 0.5, class_="halo"))
        radius = marks[i][2] - (5 if shown[i]["artifact"] == chosen else 0)
        parts.append(svg.tag("circle", cx=marks[i][0], cy=marks[i][1], r=radius, class_=kind))
    for i, box in enumerate(place(marks, sizes, frame)):
        parts.append(_label(labels[i], box, marks[i], series(shown[i]["target"]), shown[i]["artifact"] == chosen))
    about = "; ".join(
        f"{words.artifact_name(r['artifact'])} {words.percent(accuracy)} at "
        f"{words.milliseconds(r['devices'][device]['p90_ms'])}"
        for r, accuracy in zip(shown, top1)
    )
    return svg.chart(identity, width, height, f"Accuracy over p90 latency on {device}", about, *parts)


def _floor(rows: Sequence[Values]) -> list[float]:
    """The lowest accuracy that passes the gate, where the rows say."""
    return sorted({r["gate_floor"] for r in rows if r.get("gate_floor") is not None})


def _label(content: str, box: Box, mark: tuple[float, float, float], colour: str, strong: bool) -> Markup:
    """The name of a dot, and a hairline to it when it stands apart."""
    x, y, radius = mark
    near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    distance = math.hypot(near_x - x, near_y - y)
    leader = Markup("")
    if distance > radius + 9:
        share = (radius + 1) / distance
        leader = svg.line(x + (near_x - x) * share, y + (near_y - y) * share, near_x, near_y, class_="leader")
    middle = (box.left + box.right) / 2
    kind = f"label middle ink {colour}" + (" strong" if strong else "")
    return leader + svg.text(middle, box.bottom - 4, content, class_=kind)


def series(target: str) -> str:
    """The colour class of a format: by its place among the formats that softedge knows here."""
    known = tuple(registry.FORMATS)
    place = known.index(target) if target in known else COLOURS
    return f"format-{place}" if place < COLOURS else "other"


def _percent_ticks(scale: svg.Scale) -> Any:
    ticks = scale.ticks(5)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    digits = 0 if step >= 0.0099 and all(abs(t * 100 - round(t * 100)) < 1e-6 for t in ticks) else 1
    return lambda value: words.percent(value, digits)


def distributions(identity: str, width: float, rows: Sequence[Values], device: str) -> Markup:
    """One ridge per file: how its latencies are spread, with p50 and p90 marked and the raw extremes in view."""
    shown = [r for r in rows if r["devices"].get(device, {}).get("histogram")]
    shown = sorted(shown, key=lambda r: r["devices"][device].get("p50_ms") or 0.0)
    pitch, top, bottom = 40.0, 44.0, 44.0
    height = top + pitch * len(shown) + bottom
    left = 128.0 if width > HALF else 108.0
    right = width - (150.0 if width > HALF else 14.0)
    edges = shown[0]["devices"][device]["histogram"]["edges_ms"]
    x = svg.Scale(edges[0], edges[-1], left, right, log=True)
    baseline = top + pitch * len(shown)
    parts = [svg.x_axis(x, baseline, "latency of one image, ms (logarithmic)", wanted=8 if width > HALF else 4)]
    if width > HALF:
        parts += [
            svg.text(right + 62, top - 14, "p50", class_="tick end"),
            svg.text(right + 136, top - 14, "p90, ms", class_="tick end"),
        ]
    for number, row in enumerate(shown):
        timing = row["devices"][device]
        base = top + pitch * (number + 1) - 6
        counts = timing["histogram"]["counts"]
        counts = _smooth(counts)
        peak = max(counts)
        curve = [(left, base)] if counts[0] else []
        curve += [
            (x(math.sqrt(edges[i] * edges[i + 1])), base - 30 * count / peak)
            for i, count in enumerate(counts)
            if count or (i and counts[i - 1]) or (i + 1 < len(counts) and counts[i + 1])
        ]
        colour = series(row["target"])
        parts.append(svg.line(left, base, right, base, class_="grid"))
        parts.append(
            svg.path([(curve[0][0], base), *curve, (curve[-1][0], base)], close=True, class_=f"ridge {colour}")
        )
        for quantile, kind in (("p50_ms", "q50"), ("p90_ms", "q90")):
            if timing.get(quantile):
                parts.append(svg.line(x(timing[quantile]), base - 12, x(timing[quantile]), base + 3, class_=kind))
        parts.append(svg.text(0, base - 2, words.artifact_name(row["artifact"]), class_=f"label ink {colour}"))
        if width > HALF:
            parts += [
                svg.text(right + 62, base - 2, words.significant(timing["p50_ms"]), class_="value end"),
                svg.text(right + 136, base - 2, words.significant(timing["p90_ms"]), class_="value end strong"),
            ]
    about = "; ".join(
        f"{words.artifact_name(r['artifact'])}: p50 {words.milliseconds(r['devices'][device]['p50_ms'])}, "
        f"p90 {words.milliseconds(r['devices'][device]['p90_ms'])}"
        for r in shown
    )
    return svg.chart(identity, width, height, f"Latency distributions on {device}", about, *parts)


def _smooth(counts: Sequence[int]) -> list[float]:
    """A triangular window of five bins, for the eye; the table and report.json keep the counts."""
    padded = [0, 0, *counts, 0, 0]
    window = (1, 2, 3, 2, 1)
    return [sum(w * padded[i + k] for k, w in enumerate(window)) / 9 for i in range(len(counts))]


def bars(identity: str, width: float, items: Sequence[tuple[str, float]], name: str, show: Any) -> Markup:
    """Named values as dots on hairlines, in the order given; for layers, whose names are long."""
    pitch, top, bottom = 22.0, 30.0, 8.0
    longest = max(svg.text_width(label, 12) for label, _ in items)
    left = min(longest + 12, width * 0.55)
    right = width - 64
    height = top + pitch * len(items) + bottom
    low, high = min(0.0, *(v for _, v in items)), max(v for _, v in items)
    x = svg.Scale(low, high if high > low else low + 1, left, right)
    parts = [svg.text(0, 12, name, class_="name")]
    for number, (label, value) in enumerate(items):
        y = top + pitch * number + 10
        parts += [
            svg.text(0, y + 4, shortened(label, left - 10), class_="tick"),
            svg.line(x(max(low, 0.0)), y, x(value), y, class_="stem"),
            svg.tag("circle", cx=x(value), cy=y, r=4.0, class_="dot accent"),
            svg.text(x(value) + 10, y + 4, show(value), class_="value"),
        ]
    about = "; ".join(f"{label} {show(value)}" for label, value in items)
    return svg.chart(identity, width, height, name, about, *parts)


def shortened(label: str, room: float) -> str:
    """A layer name cut at the front, where names say the least."""
    while svg.text_width(label, 12) > room and len(label) > 6:
        label = "…" + label.lstrip("…")[1:]
    return label
