"""What the device carried before training: p90 over pixels of the networks that were tried, and the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from softedge.report import svg, trained, words

Values = Mapping[str, Any]


def timed(run: dict[str, Any]) -> list[Values]:
    """The fits of the plan that have a time, in the order of trying; empty where they are too few to draw."""
    fits = [fit for fit in run["plan"].get("fits", ()) if _is_time(fit)]
    return fits if len(fits) > 1 else []


def _is_time(fit: Values) -> bool:
    values: tuple[Any, ...] = fit.get("p90_ms"), fit.get("size")
    return all(words.is_number(value) and value > 0 for value in values) and isinstance(fit.get("network"), str)


def caption(run: dict[str, Any]) -> str:
    """Which of them is marked, and whether it is what the files hold."""
    ring = chosen(run)
    if ring is None:
        return "None of them met the limits."
    exported = (ring["network"], ring["size"]) == _exported(run)
    return f"Ring: {'exported' if exported else 'the largest that met the limits'}. Hollow: limits not met."


def chosen(run: dict[str, Any]) -> Values | None:
    """The one that is exported; the largest that met the limits, last in the plan, where that one was not tried."""
    fits = timed(run)
    exported = [fit for fit in fits if (fit["network"], fit["size"]) == _exported(run)]
    met = exported or [fit for fit in fits if fit.get("met")]
    return met[-1] if met else None


def _exported(run: dict[str, Any]) -> tuple[str, int]:
    """Network and pixels of the run's files."""
    recipe = run["recipe"]
    data, own = recipe.get("data", {}), recipe.get("backbone", {}).get("name", "")
    student = recipe.get("distill", {}) if trained.exported_from(run) == "distill" else {}
    return student.get("backbone") or own, student.get("size") or data.get("size", 0)


def limit(run: dict[str, Any]) -> float:
    """Milliseconds (p90) that were allowed; 0 where only the size of a file was limited."""
    value = run["recipe"].get("check", {}).get("max_p90", 0)
    return float(value) if words.is_number(value) else 0.0


def draw(identity: str, width: float, fits: Sequence[Values], limit: float, ring: Values | None) -> Markup:
    """One line for each network; hollow dots did not meet the limits, the ring marks the one that was chosen."""
    height, left, right, top, bottom = 300.0, 52.0, width - 14, 40.0, 46.0
    pixels, p90 = [fit["size"] for fit in fits], [fit["p90_ms"] for fit in fits]
    x = svg.Scale(*svg.padded(min(pixels), max(pixels), least=64), left, right)
    y = svg.Scale(0.0, max(*p90, limit) * 1.12, height - bottom, top)
    name = "p90 latency, ms" + (f"; dashed: limit {words.milliseconds(limit)}" if limit else "")
    parts = [svg.y_axis(y, left, right, name, words.tick, 5), svg.x_axis(x, height - bottom, "pixels", wanted=5)]
    if limit:
        parts.append(svg.line(left, y(limit), right, y(limit), class_="gate"))
    names = list(dict.fromkeys(fit["network"] for fit in fits))
    for number, network in enumerate(names):
        own = sorted((fit for fit in fits if fit["network"] == network), key=lambda fit: fit["size"])
        parts.append(svg.path([(x(fit["size"]), y(fit["p90_ms"])) for fit in own], class_=f"line line-{number % 4}"))
        for fit in own:
            at = {"cx": x(fit["size"]), "cy": y(fit["p90_ms"])}
            kind = f"dot dot-line-{number % 4}" + ("" if fit.get("met") else " not-passed")
            parts.append(svg.tag("circle", **at, r=5.0, class_=kind))
            if fit == ring:
                parts.append(svg.tag("circle", **at, r=9.0, class_="halo"))
    for number, network in enumerate(names):  # time rises with the pixels: nothing else is at the top on the left
        kind = f"label strong haloed ink-line-{number % 4}"
        parts.append(svg.text(left + 8, top + 16 + 18 * number, network, class_=kind))
    about = "; ".join(
        f"{fit['network']} at {fit['size']} pixels {words.milliseconds(fit['p90_ms'])}, "
        f"{'met' if fit.get('met') else 'not met'}"
        for fit in fits
    )
    return svg.chart(identity, width, height, "p90 latency over pixels, before training", about, *parts)
