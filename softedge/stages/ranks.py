"""``softedge pretrain`` on several GPUs or machines: check first, launch, and what each rank then does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from softedge import distributed
from softedge.config import Recipe
from softedge.data import load
from softedge.errors import Interrupted, UserError
from softedge.progress import say
from softedge.records import Result
from softedge.run import Run
from softedge.ssl import sizing
from softedge.ssl.launch import Ended, launch
from softedge.ssl.watch import watched
from softedge.stages.base import Performs
from softedge.stages.data import prepare
from softedge.weights import checkpoints


def wanted(gpus: int, nodes: int) -> bool:
    """Whether this is about more than one process: asked for, or started by torchrun or srun already."""
    return max(gpus, nodes) > 1 or distributed.asked_world() > 1


def first() -> bool:
    """Whether this is rank 0, or not a rank at all; known before the ranks have joined."""
    return distributed.asked_world() == 1 or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def train(
    run: Run, recipe: Recipe, force: bool, gpus: int, nodes: int, command: Sequence[str], stage: Performs[Result]
) -> Result:
    """``stage`` "pretrain" of ``run`` on ``gpus`` x ``nodes`` processes.

    command: the arguments of ``softedge`` that bring a launched process here again.
    The effective batch, its shares and the queue are checked against the images before anything is launched.
    """
    if distributed.asked_world() > 1:
        try:
            with distributed.joined(), watched():
                return _as_rank(stage, run, recipe, force)
        except (Interrupted, KeyboardInterrupt) as error:
            if distributed.launched() or os.environ.get("RANK", "0") != "0":
                raise SystemExit(getattr(error, "code", 130)) from None  # one says it for all
            raise
    with run.locked():
        prepare(run, recipe, recipe.data.source, force=force)
    world, images = gpus * nodes, len(load(run).pretrain)
    sizing.require_feasible(recipe, images, world)
    say(
        f"launching {gpus} processes{f' on each of {nodes} machines' if nodes > 1 else ''}: batch {recipe.ssl.batch}, "
        f"{recipe.ssl.batch // world} images per process; learning rate {recipe.optim.lr:g} for the whole batch"
    )
    try:
        launch(command, gpus, nodes, beside=run.root / "recipe.toml")
    except Ended as ended:
        if ended.code in (130, 143, -2, -15):
            raise Interrupted(
                f"the ranks have ended, {_kept(run, recipe, images)}; run the same command again to resume",
                143 if ended.code in (143, -15) else 130,
            ) from None
        if ended.code == distributed.SILENT_PEER:
            why = "a rank no longer answers, so all ranks were stopped"
            raise UserError(f"{why}; {_kept(run, recipe, images)}") from None
        if ended.code == distributed.LEFT_ALONE:
            raise UserError(
                f"a rank on another machine has ended, so all ranks were stopped; {_kept(run, recipe, images)}"
            ) from None
        why = f"exit code {ended.code}, its message is above" if ended.code >= 0 else f"killed by signal {-ended.code}"
        if ended.code == -9:
            why += ", out of memory?"
        raise UserError(f"a rank has ended ({why}), so all ranks were stopped; {_kept(run, recipe, images)}") from None
    return run.need("pretrain", "pretrain --out")


def _kept(run: Run, recipe: Recipe, images: int) -> str:
    """What a resumed run would start from, according to the checkpoint on disk."""
    path = run.folder("pretrain") / "last.pt"
    if not path.exists():
        return "there is no checkpoint yet"
    try:
        step = checkpoints.read(path)["position"]["step"]
    except checkpoints.Damaged as error:
        return f"the checkpoint {path} is damaged ({error})"
    epoch = step / (images // recipe.ssl.batch)
    return f"the checkpoint {path} holds epoch {epoch:.1f} of {recipe.ssl.epochs}"


def _as_rank(stage: Performs[Result], run: Run, recipe: Recipe, force: bool) -> Result:
    """Rank 0 holds the run folder and prepares the data, then all train."""
    if distributed.rank() == 0:
        with run.locked():
            prepare(run, recipe, recipe.data.source)
            distributed.anyone(False)  # the others wait here for the data
            return stage(run, recipe, load(run), force=force)
    distributed.anyone(False)
    return stage(run, recipe, load(run), force=force)


def command(data: str | None, recipe: str | None, out: str | Path, overrides: Sequence[str], force: bool) -> list[str]:
    """The command line of one rank."""
    arguments = ["pretrain", "--out", os.fspath(out)]
    arguments += ["--data", data] if data else []
    arguments += ["--recipe", recipe] if recipe else []
    arguments += [part for value in overrides for part in ("--set", value)]
    return arguments + (["--force"] if force else [])
