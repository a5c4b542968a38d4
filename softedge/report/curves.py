"""The curves of training: metrics.jsonl, and the losses in results -> a few hundred points that a chart can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softedge.files import read_text
from softedge.report import words

Values = dict[str, Any]
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


def training_losses(run: Values) -> list[tuple[str, list[list[float]], str]]:
    """Fine-tuning and distillation, where they were run: (the loss' name, [[step, loss], ...], what it was trained on).

    Steps count from 1; the stages keep the last step of every mean, from 0.
    """
    found = []
    for stage, name in (("finetune", "fine-tuning loss"), ("distill", "distillation loss")):
        values = run.get(stage, {})
        kept, metrics = values.get("losses"), values.get("metrics", {})
        points = [[pair[0] + 1, pair[1]] for pair in kept if _is_point(pair)] if isinstance(kept, list) else []
        if not 2 <= len(points) <= MOST_POINTS:
            continue
        labelled, without = metrics.get("n_train"), metrics.get("n_unlabelled")
        on = words.plural(labelled, "labelled image") if words.is_number(labelled) else "the labelled images"
        found.append((name, points, on + (f" and {words.count(without)} without a label" if without else "")))
    return found


def _is_point(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(words.is_number, pair)) and pair[0] >= 0
