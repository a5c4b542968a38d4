"""The summary of a finished pretraining, from its journal; it may have been resumed many times."""

from __future__ import annotations

import torch

from softedge import distributed
from softedge.config import Recipe
from softedge.records import Outcome
from softedge.ssl.journal import Journal

_LABEL_FREE = ("std", "effective_rank", "alignment", "uniformity")
_CURVES = ("step", "epoch", "loss", "lr", "knn_top1", *_LABEL_FREE)


def of(recipe: Recipe, journal: Journal, images: int, steps: int, notes: list[str], dtype: torch.dtype) -> Outcome:
    """Metrics of the end, curves over the steps, seconds by part of the step."""
    entries = journal.entries
    trained = [e for e in entries if "loss" in e]
    last, seconds = trained[-1], sum(e["seconds"] for e in trained)
    metrics: dict[str, float | int | bool] = {
        "loss": last["loss"],
        "epochs": recipe.ssl.epochs,
        "steps": steps,
        "images": images,
        "images_per_second": round(steps * recipe.ssl.batch / max(seconds, 1e-9), 1),
        **{name: last[name] for name in _LABEL_FREE if name in last},
    }
    skipped = {}
    if accuracies := [e["knn_top1"] for e in entries if "knn_top1" in e]:
        metrics |= {"knn_top1": accuracies[-1], "knn_top1_start": accuracies[0]}
    else:
        skipped["knn_top1"] = "ssl.knn_every is 0" if recipe.ssl.knn_every == 0 else "fewer than 10 labelled images"
    parts = sorted({name for e in trained for name in e if name.startswith("s_")})
    split = {name.removeprefix("s_"): round(sum(e.get(name, 0.0) for e in trained), 3) for name in parts}
    details = {
        "curves": [{name: e[name] for name in _CURVES if name in e} for e in entries],
        "seconds": {"all": round(seconds, 3), **split},
        "notes": notes,
        "warnings": journal.warnings,
        "world": distributed.world(),
        "precision": str(dtype).removeprefix("torch."),
    }
    return Outcome(metrics, details, skipped)
