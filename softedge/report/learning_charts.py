"""Charts of what was learned: curves, accuracy by labels, the test set in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from softedge.report import svg, words
from softedge.report.placement import Box, place, spread

Values = Mapping[str, Any]


def curve(
    identity: str,
    width: float,
    lines: Sequence[tuple[str, Sequence[Sequence[float]]]],
    name: str,
    percent: bool = False,
    reference: tuple[str, float] | None = None,
    over: str = "epochs",
) -> Markup:
    """Lines with their last value written at the end; ``reference``: a named level to compare with.

    over: what training is counted in.
    """
    height, left, top, bottom = 260.0, 52.0, 36.0, 44.0
    show = (lambda v: words.percent(v)) if percent else (lambda v: words.significant(v))
    ends = [f"{label} {show(points[-1][1])}".strip() for label, points in lines]
    right = width - max(svg.text_width(e, 13) for e in ends) - 14
    values = [v for _, points in lines for _, v in points] + ([reference[1]] if reference else [])
    low, high = svg.padded(min(values), max(values), share=0.06)
    x = svg.Scale(0.0, max(p[0] for _, points in lines for p in points), left, right)
    low = max(low, 0.0) if min(values) >= 0 else low  # SimSiam's loss is negative
    y = svg.Scale(low, min(high, 1.0) if percent else high, height - bottom, top)
    ticks = (lambda v: words.percent(v, 0)) if percent else (lambda v: f"{v:g}")
    parts = [
        svg.y_axis(y, left, right, name, ticks, 5),
        svg.x_axis(x, height - bottom, over, lambda v: f"{v:g}", 5),
    ]
    if reference:
        at = y(reference[1])
        parts.append(svg.line(left, at, right, at, class_="gate"))
        below = at - top < 24  # the axis' name stands above
        parts.append(
            svg.text(right, at + (16 if below else -6), f"{reference[0]} {show(reference[1])}", class_="tick end")
        )
    heights = spread([y(points[-1][1]) + 4 for _, points in lines], 16, top, height - bottom)
    for number, (end, at, (_, points)) in enumerate(zip(ends, heights, lines)):
        parts.append(svg.path([(x(a), y(b)) for a, b in points], class_=f"line line-{number % 4}"))
        parts.append(svg.text(right + 7, at, end, class_=f"label strong ink-line-{number % 4}"))
    about = "; ".join(f"{e}, from {show(points[0][1])}" for e, (_, points) in zip(ends, lines))
    return svg.chart(identity, width, height, f"{name} over {over}", about, *parts)


def embedding(identity: str, width: float, layout: Values, classes: Sequence[str]) -> Markup:
    """The test set in two dimensions: one dot per image in its class' colour, a cross where the answer is wrong."""
    side, margin = width, 18.0
    height = min(side, 520.0)
    x = svg.Scale(0.0, 1.0, margin, side - margin)
    y = svg.Scale(0.0, 1.0, height - margin, margin)
    dots, crosses, names, boxes = [], [], [], []
    for a, b, truth, answer in zip(layout["x"], layout["y"], layout["truth"], layout["answer"]):
        at_x, at_y = x(a), y(b)
        if truth == answer:
            dots.append(svg.tag("circle", cx=at_x, cy=at_y, r=2.6, class_=f"class-{truth % 10}"))
        else:
            crosses.append(
                svg.tag("path", d=f"M{at_x - 4:.1f},{at_y - 4:.1f}l8,8m0,-8l-8,8", class_=f"cross class-{truth % 10}")
            )
    if len(classes) <= 20:
        for number, name in enumerate(classes):
            inside = [(x(a), y(b)) for a, b, t in zip(layout["x"], layout["y"], layout["truth"]) if t == number]
            if inside:
                middle = _medoid(inside)
                wide = svg.text_width(name, 14) + 8
                boxes.append((middle, wide, name))
        placed = place(
            [(m[0], m[1], 0.0) for m, _, _ in boxes], [(w, 18.0) for _, w, _ in boxes], Box(2, 2, side - 2, height - 2)
        )
        for box, (_, _, name) in zip(placed, boxes):
            names.append(
                svg.text((box.left + box.right) / 2, box.bottom - 4, name, class_="label strong middle haloed")
            )
    about = f"{layout['n']} test images, {len(crosses)} of them answered wrongly, {len(classes)} classes."
    return svg.chart(identity, side, height, "The test set in feature space (t-SNE)", about, *dots, *crosses, *names)


def _medoid(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The coordinate-wise median: it lies in the crowd even when a few points stray."""
    ordered_x, ordered_y = sorted(p[0] for p in points), sorted(p[1] for p in points)
    return ordered_x[len(points) // 2], ordered_y[len(points) // 2]


def label_efficiency(
    identity: str, width: float, lines: Sequence[tuple[str, int, Sequence[Sequence[float]]]]
) -> Markup:
    """Accuracy over the number of labels, logarithmic. lines: (name, colour, [[labels, mean, low, high], ...])."""
    height, left, top, bottom = 300.0, 52.0, 36.0, 46.0
    right = width - max(svg.text_width(label, 13) for label, _, _ in lines) - 16
    across = [p[0] for _, _, points in lines for p in points]
    up = [v for _, _, points in lines for p in points for v in p[1:]]
    x = svg.Scale(*svg.log_padded(min(across), max(across), 2.0, 1.08), left, right, log=True)
    low, high = svg.padded(min(up), max(up), share=0.08)
    y = svg.Scale(max(0.0, low), min(1.0, high), height - bottom, top)
    parts = [
        svg.y_axis(y, left, right, "top-1", lambda v: words.percent(v, 0), 5),
        svg.x_axis(x, height - bottom, "labelled training images (logarithmic)", words.count, 5),
    ]
    heights = spread([y(points[-1][1]) + 4 for _, _, points in lines], 16, top, height - bottom)
    for at, (label, colour, points) in zip(heights, lines):
        drawn = [(x(p[0]), y(p[1])) for p in points]
        for p in points:
            parts.append(
                svg.line(x(p[0]), y(max(p[2], y.low)), x(p[0]), y(min(p[3], y.high)), class_=f"line-{colour % 4}")
            )
        parts.append(svg.path(drawn, class_=f"line line-{colour % 4}"))
        parts += [svg.tag("circle", cx=a, cy=b, r=3.2, class_=f"dot-line-{colour % 4}") for a, b in drawn]
        parts.append(svg.text(right + 9, at, label, class_=f"label strong ink-line-{colour % 4}"))
    about = "; ".join(
        f"{label}: " + ", ".join(f"{words.percent(p[1])} with {p[0]:g}" for p in points) for label, _, points in lines
    )
    return svg.chart(identity, width, height, "Accuracy over labels", about, *parts)
