"""``softedge linear``: linear accuracy by a paper's full protocol, with augmentation, on the frozen network."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from softedge import backbones
from softedge.config import Recipe
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval.finetune import thinned
from softedge.eval.knn import top1, topk
from softedge.eval.protocols import PROTOCOLS, evaluate, train
from softedge.progress import plural, say
from softedge.records import Outcome, Result
from softedge.run import Run
from softedge.stages.base import BACKBONE, INDEX, Stage, hashes, on_run


def linear(
    run: str | PathLike[str], protocol: str | None = None, set: Sequence[str] = (), force: bool = False
) -> Result:
    """Linear accuracy by a paper's full protocol, with augmentation, on the frozen network.

    Metrics: top1, top5 (more than 5 classes), n_train, n_test, epochs, batch, and where the fast probe on cached
    features was run: probe_top1 and its difference, probe_gap.
    """
    return on_run(stage, run, set, force, linear={"protocol": protocol})


def _labelled(run: Run, recipe: Recipe, data: Data) -> None:
    if not len(data.train.every) or not len(data.test.every):
        raise UserError(f"{run.root} needs labelled training and test images for a linear protocol")


def _work(run: Run, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    name = recipe.linear.protocol
    backbone = backbones.load(run.root / BACKBONE)
    protocol = PROTOCOLS[name]
    epochs = recipe.linear.epochs or protocol.epochs
    batch = min(recipe.linear.batch or protocol.batch, len(data.train))
    if epochs != protocol.epochs or batch != protocol.batch:
        full = f"full: {protocol.epochs} at {protocol.batch}"
        say(f"linear: {name} with {plural(epochs, 'epoch')} at batch {batch} ({full})")
    head, losses = train(protocol, backbone, data.train, data, epochs, batch, recipe.seed, recipe.augment.flip)
    logits = evaluate(protocol, backbone, head, data.test, data.spec)
    metrics: dict[str, Any] = {"top1": top1(logits, data.test.labels)}
    if len(data.classes) > 5:
        metrics["top5"] = topk(logits, data.test.labels, 5)
    metrics |= {"n_train": len(data.train), "n_test": len(data.test), "epochs": epochs, "batch": batch}
    details: dict[str, Any] = {"protocol": name, "losses": thinned(losses)}
    probe, skipped = run.result("probe"), {}
    if probe is not None and probe.metrics.get("n_train") == len(data.train):
        metrics["probe_top1"] = probe.metrics["linear_top1"]
        metrics["probe_gap"] = probe.metrics["linear_top1"] - metrics["top1"]
        # A comparison and no input: probing again must not ask for hours of this again.
        details["compared_with"] = hashes(run, ["probe/result.json"])
    else:
        skipped["probe_gap"] = "the probe on cached features was not run on the same labels"
    return Outcome(metrics, details, skipped)


stage = Stage(
    lambda recipe: f"linear/{recipe.linear.protocol}",
    settings=lambda recipe: {**recipe.section("seed", "linear"), "flip": recipe.augment.flip},
    reads=lambda run, recipe: (INDEX, BACKBONE),
    after=("pretrain",),
    ready=_labelled,
    work=_work,
)
