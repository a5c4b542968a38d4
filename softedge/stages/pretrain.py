"""``softedge pretrain``: train a backbone without labels; on one process, or on several GPUs and machines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softedge import backbones, distributed, registry
from softedge.config import Recipe
from softedge.data import late
from softedge.data.images import Data, EncodedImages
from softedge.data.naming import text_of
from softedge.errors import UserError, whole
from softedge.eval import starts
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, perform, read_json, sha256, write_json
from softedge.ssl import sizing
from softedge.ssl.train import Training
from softedge.stages import teachers
from softedge.stages.base import BACKBONE, INDEX
from softedge.stages.data import opened
from softedge.stages.opening import choose_recipe, identity, started
from softedge.weights import starting

NAME = "pretrain"
ASIDE = "set-aside.json"  # rows of the images that were set aside before the training began
TRAINED = "trained.safetensors"
_LOOKED_AT = 64  # images, to see whether they are grey


def pretrain(
    data: str | Path | None = None,
    recipe: str | None = None,
    out: str | Path = "runs/default",
    set: Sequence[str] = (),
    force: bool = False,
    gpus: int = 1,
    nodes: int = 1,
) -> Result:
    """Pretrain a backbone without labels into the run folder ``out``; resumes where an earlier start was killed.

    gpus: processes on this machine, one for each GPU; one trains on the CPU where there is no GPU.  nodes: machines.
    """
    gpus = whole("gpus", gpus, why=" (1 trains on the CPU where there is no GPU; CUDA_VISIBLE_DEVICES=-1 hides one)")
    nodes = whole("nodes", nodes)
    data = None if data is None else text_of(data)
    resolved = choose_recipe(data, recipe, set, out)
    teachers.refuse_unknown_names(resolved)
    if max(gpus, nodes) > 1 or "WORLD_SIZE" in os.environ or "SLURM_PROCID" in os.environ:
        from softedge.stages import ranks

        if ranks.wanted(gpus, nodes):
            run = Run(out)
            if ranks.first():  # the others must not find a folder that rank 0 has half made
                with started(out, resolved, force):
                    pass  # the process that trains takes the lock
            command = ranks.command(data, recipe, out, set, force)
            return ranks.train(run, resolved, force, gpus, nodes, command, stage)
    with started(out, resolved, force) as run:
        return stage(run, resolved, opened(run, resolved, force), force)


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
    """Train ``recipe.ssl.method`` on ``data.pretrain``; resumes bit-exactly from ``last.pt``.

    Writes metrics.jsonl, last.pt, backbone.safetensors and result.json into the run's ``pretrain`` folder.  Unless the
    trained weights are clearly better than those it started from (``ssl.keep``), the latter are in
    backbone.safetensors and the trained ones beside it, in trained.safetensors.
    Raises UserError for settings that cannot work and when the guard stops the training, ``Interrupted`` after
    SIGINT or SIGTERM. On several ranks all of them call it, and rank 0 writes.
    """
    values, inputs = settings(recipe), inputs_of(run, recipe)
    if recipe.ssl.epochs == 0:
        if distributed.world() > 1:
            raise UserError("ssl.epochs = 0 trains nothing: use one process")
        return perform(
            run, NAME, lambda folder: _start(recipe, data, folder), recipe=values, inputs=inputs, force=force
        )
    sizing.require_feasible(recipe, len(data.pretrain), distributed.world())

    def work(folder: Path) -> Outcome:
        images = _as_begun(data, folder)
        try:
            if distributed.rank() == 0 and not (folder / "last.pt").exists() and (line := _grey_notice(recipe, images)):
                say(line)
            training = Training(run, recipe, images, folder)
        except UserError:
            if not (folder / "last.pt").exists():  # nothing was begun: a corrected recipe may start here
                shutil.rmtree(folder, ignore_errors=True)
            raise
        outcome = training.work()
        if _judged(recipe) and distributed.rank() == 0:
            left = late.without_lost(run.root, data)  # training may have taken days
            outcome = _better(outcome, recipe, left, folder)
        return late.recorded(outcome, late.record(images))

    if distributed.world() == 1:
        return perform(run, NAME, work, recipe=values, inputs=inputs, force=force, resumable=True)
    return distributed.on_first_rank(
        lambda follow: perform(
            run, NAME, lambda f: follow(lambda: work(f)), recipe=values, inputs=inputs, force=force, resumable=True
        ),
        others=lambda: work(run.folder(NAME)),
        result=lambda: run.need(NAME, "pretrain"),
    )


def _as_begun(data: Data, folder: Path) -> Data:
    """The data with the images that a half-finished training was begun on: with others its batches would shift.

    What was lost since is replaced while the images are read, as in a training that was not interrupted.
    """
    every, rows, mark = data.pretrain.every, data.pretrain.rows, folder / ASIDE
    if (folder / "last.pt").exists():
        return replace(data, pretrain=data.pretrain.without(read_json(mark)["rows"] if mark.exists() else []))
    lost = [] if rows is None else np.setdiff1d(np.arange(len(every)), rows).tolist()
    if distributed.rank() == 0 and lost:
        write_json(mark, {"rows": lost})
    elif distributed.rank() == 0:
        mark.unlink(missing_ok=True)
    return data


def _grey_notice(recipe: Recipe, data: Data) -> str:
    """What to set where a sample of the photos is grey and the recipe jitters their colours; "" elsewhere.

    A plan leaves the jitter out; a recipe keeps what it says.  Named data sets have recipes of their own.
    """
    augment, images = recipe.augment, data.pretrain
    if not (augment.jitter or augment.grey) or not isinstance(images.every, EncodedImages):
        return ""
    chosen = np.sort(np.random.default_rng(recipe.seed).permutation(len(images))[:_LOOKED_AT])
    pixels = images.subset(chosen).prepared(data.spec)
    grey = (pixels == pixels[..., :1]).all(axis=(1, 2, 3))
    if grey.mean() < 0.99:
        return ""
    off = [f"--set augment.{name}=0" for name in ("jitter", "grey") if getattr(augment, name)]
    return (
        f"caution: the images are grey, and the recipe jitters their colours, which lowered k-NN on grey photos from "
        f"0.64 to 0.56 (TrashNet); to leave that out: {' '.join(off)}"
    )


def _start(recipe: Recipe, data: Data, folder: Path) -> Outcome:
    """The starting weights as they are, where the later stages look for a backbone."""
    backbones.save(folder / "backbone.safetensors", backbones.build(recipe.backbone, recipe.seed), data.spec)
    say(f"pretrain: ssl.epochs = 0, the backbone keeps {starting.in_words(recipe.backbone)}")
    return Outcome({"epochs": 0, "steps": 0}, {"start": recipe.backbone.weights})


def _judged(recipe: Recipe) -> bool:
    """Whether the features before and after decide which weights are kept."""
    if recipe.ssl.keep != "better" or recipe.ssl.epochs == 0 or recipe.backbone.weights == "random":
        return False
    return not registry.lookup(registry.METHODS, recipe.ssl.method, "method").uses_labels  # it has seen the answers


def _better(outcome: Outcome, recipe: Recipe, data: Data, folder: Path) -> Outcome:
    """Keep the starting weights unless a linear layer does clearly better on the features after the training."""
    path = folder / Path(BACKBONE).name
    start, trained = backbones.build(recipe.backbone, recipe.seed), backbones.load(path)
    scores = starts.compare(start, trained, data.train, data.spec, recipe.probe.weight_decays, recipe.seed)
    if scores is None:
        say("pretrain: too few labels to say whether it paid; the trained weights are kept")
        return replace(outcome, details={**outcome.details, "kept": "trained"})
    kept = "trained" if scores.paid else "start"
    if not scores.paid:
        backbones.save(folder / TRAINED, trained, data.spec)
        backbones.save(path, start, data.spec)
    rest = (
        "these are kept"
        if scores.paid
        else f"{starting.in_words(recipe.backbone)} are kept, the trained ones are in {TRAINED}"
    )
    say(
        f"pretrain: of {scores.n:,} held-out training images a linear layer on the features answers "
        f"{scores.before:.3f} right with the starting weights, {scores.after:.3f} with the trained ones, "
        f"{scores.gain}: {rest}"
    )
    metrics = {"before_val_top1": scores.before, "after_val_top1": scores.after, "n_val": scores.n}
    metrics |= scores.gain.metrics()
    return replace(outcome, metrics={**outcome.metrics, **metrics}, details={**outcome.details, "kept": kept})


def settings(recipe: Recipe) -> dict[str, Any]:
    """What the weights depend on: where the images lie and how fast they are read is not among it."""
    values = {**identity(recipe), **recipe.section("knn")}
    values["data"].pop("source")  # from where, not what: the index says which images
    if _judged(recipe):
        values["weight_decays"] = list(recipe.probe.weight_decays)
    else:
        values["ssl"].pop("keep")
    return values


def inputs_of(run: Run, recipe: Recipe) -> dict[str, str]:
    inputs = {}
    if (run.root / INDEX).exists():
        inputs[INDEX] = sha256(run.root / INDEX)
    inputs |= starting.inputs(recipe.backbone)
    for path in filter(None, recipe.ssl.files()):
        inputs[Path(path).name] = sha256(path) if Path(path).is_file() else "absent"
    return inputs
