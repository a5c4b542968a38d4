"""The evaluation commands as functions: each opens the run, measures (or finds it measured) and returns the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from softedge.errors import UserError, did_you_mean
from softedge.records import Result
from softedge.stages.pipeline import data_of, reopen, replaced


def knn(
    run: str | Path,
    k: int | None = None,
    temperature: float | None = None,
    preset: str | None = None,
    force: bool = False,
) -> Result:
    """Weighted k-NN accuracy of the pretrained features; ``preset`` gives a paper's k and temperature."""
    from softedge.eval.knn import PRESETS
    from softedge.eval.probe import knn as measure

    opened, recipe = reopen(run)
    if preset is not None:
        if preset not in PRESETS:
            raise UserError(f"unknown k-NN preset '{preset}'{did_you_mean(preset, tuple(PRESETS))}")
        recipe = replaced(recipe, knn=dict(PRESETS[preset]))
    recipe = replaced(recipe, knn={"k": k, "temperature": temperature})
    with opened.locked():
        return measure(opened, recipe, data_of(opened, recipe), force=force)


def probe(run: str | Path, labels: float | None = None, set: Sequence[str] = (), force: bool = False) -> Result:
    """k-NN and linear accuracy of the frozen features; writes the classifier that is exported."""
    from softedge.eval.probe import probe as measure

    opened, recipe = reopen(run, set)
    recipe = replaced(recipe, probe={"labels": labels})
    with opened.locked():
        return measure(opened, recipe, data_of(opened, recipe), force=force)


def linear(run: str | Path, protocol: str | None = None, set: Sequence[str] = (), force: bool = False) -> Result:
    """Linear accuracy by a paper's full protocol, with augmentation, on the frozen network."""
    from softedge.eval.protocols import linear as measure

    opened, recipe = reopen(run, set)
    recipe = replaced(recipe, linear={"protocol": protocol})
    with opened.locked():
        return measure(opened, recipe, data_of(opened, recipe), force=force)


def finetune(
    run: str | Path,
    init: str | None = None,
    labels: float | None = None,
    set: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Train the whole network on the labels, from the SSL backbone, ImageNet weights, a file or scratch."""
    from softedge.eval.finetune import finetune as train

    opened, recipe = reopen(run, set)
    recipe = replaced(recipe, finetune={"init": init, "labels": labels})
    with opened.locked():
        return train(opened, recipe, data_of(opened, recipe), force=force)


def labels(run: str | Path, set: Sequence[str] = (), force: bool = False) -> Result:
    """Accuracy by number of labels, with and without pretraining, and a sentence that says what it was worth."""
    from softedge.eval.labels import labels as measure

    opened, recipe = reopen(run, set)
    with opened.locked():
        return measure(opened, recipe, data_of(opened, recipe), force=force)


def backbone(run: str | Path, framework: str = "timm", out: Path | None = None) -> Path:
    """Write the pretrained backbone as a checkpoint of timm, torchvision, Detectron2 or MMDetection."""
    from softedge.export.hooks import write

    return write(reopen(run)[0], framework, out)
