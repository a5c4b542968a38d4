"""The few pieces that charts are made of: elements, scales, ticks, axes. Plain text in, inline SVG out.

Colours are CSS classes and variables of the page, so that a chart follows the reader's dark mode and prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from softedge.report.words import tick as short


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element. ``class_`` becomes ``class``, ``stroke_width`` ``stroke-width``; None leaves an attribute out."""
    written = ""
    for key, value in attributes.items():
        if value is None:
            continue
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
        written += f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"'
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    return tag("text", content, x=float(x), y=float(y), **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), **attributes)


def path(points: Sequence[tuple[float, float]], close: bool = False, **attributes: object) -> Markup:
    """Straight lines through the points."""
    drawn = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + ("Z" if close else "")
    return tag("path", d=drawn, **attributes)


def chart(identity: str, width: float, height: float, title: str, about: str, *children: str) -> Markup:
    """An inline image with a name and a description for screen readers. ``identity`` must be unique in the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{identity}-title"),
        tag("desc", about, id=f"{identity}-about"),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{identity}-title",
        aria_describedby=f"{identity}-about",
        class_="chart",
    )


def text_width(content: str, size: float = 12.0) -> float:
    """Width of a text in pixels, on the generous side: the reader's font is not known here."""
    narrow = sum(c in " .,:;'|!iljtfrI·\u202f" for c in content)
    return size * (0.66 * (len(content) - narrow) + 0.38 * narrow)


@dataclass(frozen=True)
class Scale:
    """Maps values from ``low..high`` to pixels ``start..end``, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-12))
        if low == high:  # a training of which there is one measurement yet
            return (self.start + self.end) / 2
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        return log_ticks(self.low, self.high, wanted) if self.log else linear_ticks(self.low, self.high, wanted)


def linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values inside low..high: steps of 1, 2, 2.5 or 5 times a power of ten, at most ``wanted`` or so."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if span / (s * power) <= wanted)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """1, 2, 5 times powers of ten inside low..high; linear steps where that leaves fewer than three."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low * 0.999 <= m * 10.0**p <= high * 1.001]
    if len(ticks) > wanted + 2:
        ticks = [t for t in ticks if math.isclose(math.log10(t), round(math.log10(t)))]
    return ticks if len(ticks) > 3 or len(ticks) >= wanted - 1 else log_ticks_dense(low, high, wanted)


def log_ticks_dense(low: float, high: float, wanted: int) -> list[float]:
    """For about a decade: 1, 1.5, 2, 3, 4, 5, 7 times powers of ten; linear steps for a narrower range."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [round(m * 10.0**p, 12) for p in powers for m in (1, 1.5, 2, 3, 4, 5, 7)]
    inside = [t for t in ticks if low <= t <= high]
    return inside[:: max(1, -(-len(inside) // wanted))] if len(inside) >= 3 else linear_ticks(low, high, wanted)


def padded(low: float, high: float, least: float = 0.0, share: float = 0.08) -> tuple[float, float]:
    """A range with some air around it, and never narrower than ``least`` (so that noise is not blown up)."""
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    air = (high - low) * share or abs(high) * share or 1.0
    return low - air, high + air


def log_padded(low: float, high: float, least: float = 2.0, share: float = 1.15) -> tuple[float, float]:
    """The same for a logarithmic axis: ``least`` is the smallest ratio, ``share`` the factor of air."""
    if high / low < least:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(least), middle * math.sqrt(least)
    return low / share, high * share


def x_axis(scale: Scale, y: float, name: str, show: Callable[[float], str] = short, wanted: int = 6) -> Markup:
    """Ticks and their numbers below ``y``, and the axis' name under its right end."""
    parts = [line(scale.start, y, scale.end, y, class_="axis")]
    taken = -math.inf
    for tick in scale.ticks(wanted):
        at, half = scale(tick), text_width(show(tick), 12) / 2
        parts.append(line(at, y, at, y + 4, class_="axis"))
        if at - half > taken + 4:  # a tick without room for its number keeps its mark
            parts.append(text(at, y + 17, show(tick), class_="tick middle"))
            taken = at + half
    parts.append(text(scale.end, y + 34, name, class_="name end"))
    return Markup("").join(parts)


def y_axis(scale: Scale, left: float, right: float, name: str, show: Callable[[float], str], wanted: int = 5) -> Markup:
    """Horizontal hairlines from ``left`` to ``right`` with their numbers, and the axis' name above."""
    parts = [text(0, scale.end - 12, name, class_="name")]
    for tick in scale.ticks(wanted):
        at = scale(tick)
        parts += [line(left, at, right, at, class_="grid"), text(left - 7, at + 4, show(tick), class_="tick end")]
    return Markup("").join(parts)
