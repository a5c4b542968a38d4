"""The map of the images: what the stage "map" laid out, drawn so that a page without a script shows thumbnails.

Each image is a radio button: a pointer shows its thumbnail, a tap keeps it open, arrow keys go from one to the next.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from softedge.errors import UserError
from softedge.files import read_bytes, read_json, read_table
from softedge.report import words
from softedge.run import Run

FILE, SHEET = "map/map.json", "map/thumbnails.jpg"
WRONG = "wrong_labels.csv"  # of whatever stage looks for wrong labels: name, suggested
COLOURS = 10  # of classes in report.css
_KEYS = ("classes", "side", "columns", "of", "names", "labels", "tested", "x", "y")

Values = dict[str, Any]


def collect(run: Run) -> Values | None:
    """``map.json`` with ``suggested`` (name -> class) of the images whose label is probably wrong; None without one."""
    try:
        if run.result("map") is None:
            return None
        values = read_json(run.root / FILE)
        shown = len(values["x"])
        if any(len(values[key]) != shown for key in ("y", "names", "labels", "tested")) or not shown:
            return None
        values = {key: values[key] for key in _KEYS} | {"n": shown}
    except (UserError, KeyError, TypeError):
        return None
    names = set(values["names"])
    values["suggested"] = {name: other for name, other in _suggested(run.root).items() if name in names}
    values["n_suggested"] = len(values["suggested"])
    return values


def _suggested(root: Path) -> dict[str, str]:
    suggestions: dict[str, str] = {}
    for path in sorted(root.glob(f"*/{WRONG}")):
        try:
            rows = read_table(path)
        except UserError:
            continue
        suggestions |= {row["name"]: row.get("suggested") or "" for row in rows if row.get("name")}
    return suggestions


def sheet(run: Run) -> str | None:
    """The thumbnails as a data URI."""
    try:
        data = read_bytes(run.root / SHEET)
    except OSError:
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode() if data.startswith(b"\xff\xd8") else None


def draw(identity: str, values: Mapping[str, Any], picture: str | None) -> Markup:
    """The map as HTML. ``identity`` must be unique in the page.  picture: of ``sheet``, else text only."""
    classes, side, columns = values["classes"], int(values["side"]), int(values["columns"])
    rows = -(-len(values["x"]) // columns)
    parts = []
    if picture:
        parts.append(
            Markup(
                '<svg class="sheet" aria-hidden="true"><defs>'
                '<image id="{0}-sheet" width="{1}" height="{2}" href="{3}"/></defs></svg>'
            ).format(identity, columns * side, rows * side, picture)
        )
    every = zip(values["x"], values["y"], values["names"], values["labels"], values["tested"])
    for number, (x, y, name, label, tested) in enumerate(every):
        wrong = name in values["suggested"]
        kinds = ["u" if label < 0 else f"c{label % COLOURS}"]
        kinds += [kind for kind, yes in (("t", tested), ("w", wrong), *_edges(x, y)) if yes]
        about = [classes[label] if 0 <= label < len(classes) else "no label"]
        about += ["test image"] if tested else []
        about += [f"likely {values['suggested'][name] or 'wrong'}"] if wrong else []
        tile = Markup("")
        if picture:
            box = f"{number % columns * side} {number // columns * side} {side} {side}"
            tile = Markup('<svg viewBox="{}"><use href="#{}-sheet"/></svg>').format(box, identity)
        parts.append(
            Markup(
                '<label class="{}" style="left:{:.1f}%;top:{:.1f}%"><input type="radio" name="{}" aria-label="{}">'
                '<span aria-hidden="true">{}<b>{}</b>{}</span></label>'
            ).format(
                " ".join(kinds),
                100 * x,
                100 * (1 - y),
                identity,
                f"{name}: {', '.join(about)}",
                tile,
                ", ".join(about),
                name,
            )
        )
    return Markup('<div class="map" role="radiogroup" aria-label="{}">{}</div>').format(
        title(values), Markup("").join(parts)
    )


def _edges(x: float, y: float) -> list[tuple[str, bool]]:
    """Where a thumbnail must not be above the middle of its dot: it would stick out of the map."""
    return [("l", x < 0.12), ("r", x > 0.88), ("d", y > 0.7)]


def title(values: Mapping[str, Any]) -> str:
    """What is to be seen, for those who do not see it."""
    parts = [
        words.plural(sum(values["tested"]), "test image"),
        f"{sum(label < 0 for label in values['labels']):,} without a label",
    ]
    parts += [f"{len(values['suggested']):,} probably with a wrong one"] if values["suggested"] else []
    return f"Map of {words.count(values['n'])} images, {', '.join(parts)}; the arrow keys go from each to its neighbour"


def legend(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Class of the page's style, text."""
    shown = values["classes"] if len(values["classes"]) <= 2 * COLOURS else []
    entries = [(f"c{number % COLOURS}", name) for number, name in enumerate(shown)]
    entries += [("u", "no label")] if any(label < 0 for label in values["labels"]) else []
    entries += [("u t", "test image")] if any(values["tested"]) else []
    return entries + ([("u w", "label probably wrong")] if values["suggested"] else [])
