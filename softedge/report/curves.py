"""The pretraining curves: metrics.jsonl -> a few hundred points that a chart can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softedge.files import read_text
from softedge.report import words

MOST_POINTS = 240


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The readable lines of a JSON-lines file; a line cut by a crash is left out."""
    rows = []
    try:
        text = read_text(path, "utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def curve(rows: list[dict[str, Any]], metric: str) -> list[list[float]]:
    """[[epoch, value], ...] of a metric, thinned by averaging neighbours to at most ``MOST_POINTS``."""
    points = [
        (float(row["epoch"]), float(row[metric]))
        for row in rows
        if words.is_number(row.get(metric)) and words.is_number(row.get("epoch"))
    ]
    group = max(1, -(-len(points) // MOST_POINTS))
    thinned = []
    for start in range(0, len(points), group):
        part = points[start : start + group]
        thinned.append([round(part[-1][0], 4), round(sum(value for _, value in part) / len(part), 6)])
    return thinned
