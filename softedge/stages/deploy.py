"""``softedge deploy``: images in, checked and timed models and a report out. The list of its stages is here."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from softedge import config
from softedge.bench.base import open_devices
from softedge.config import Recipe
from softedge.data import late
from softedge.data.images import Data
from softedge.data.naming import text_of
from softedge.errors import UserError, need_lists, positive
from softedge.export.base import open_format
from softedge.files import expanded
from softedge.progress import say
from softedge.run import Run
from softedge.stages import kept, plan
from softedge.stages.data import changed, opened
from softedge.stages.export import for_labels, known_names
from softedge.stages.fitting import Limits
from softedge.stages.gate import optional_precisions
from softedge.stages.opening import has_work, refuse_foreign, replaced, started
from softedge.stages.report import report
from softedge.stages.teachers import few_and_many, mostly_unlabelled, refuse_unknown_names

# Each a module of this package with a ``stage``. The data stage goes before them, the report is written after them.
STAGES = (
    "pretrain",
    "probe",
    "finetune",
    "distill",
    "scratch",
    "baselines",
    "export",
    "quantize",
    "check",
    "bench",
    "gate",
    "map",
)
NEED_LABELS = ("probe", "finetune", "distill", "scratch", "baselines")
NEED_TEST = ("finetune", "distill", "scratch", "baselines")  # labelled images to measure on


def deploy(
    data: str | Path | None = None,
    recipe: str | None = None,
    out: str | Path | None = None,
    targets: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    set: Sequence[str] = (),
    force: bool = False,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    max_size: int | None = None,
    max_p90: float | None = None,
    minutes: float | None = None,
    min_accuracy: float | None = None,
    update: bool = False,
    max_ms: float | None = None,
    max_mb: float | None = None,
) -> Run:
    """From images to a checked, timed model and its report; ``gate(run)`` then says whether every file passed.

    precisions: None tries all of them, and a refused fp16 or int8 file is a caution where the format has others that
    pass; a file that was asked for has to pass.

    A folder of images without a recipe is planned first (``softedge.plan``): network, pixels, epochs for ``minutes``.

    Every stage that is done is skipped, so calling it again resumes where the last call was stopped.
    max_drop, min_agreement, max_size (bytes), max_p90 (ms): the gates, as in ``check``.
    min_accuracy: top-1 on the test images that every file needs.  update: do all of it again
    where images have come, gone or changed; needs ``out``, or the run that ``data`` has by default.  Files that
    ``export`` added are made anew as well, unless targets or precisions are given.
    max_ms, max_mb: what an image may take on the first device (p90) and an int8 file may weigh: they choose input size
    and network of a planned folder, and are gates afterwards.
    """
    data = None if data is None else text_of(data)
    need_lists(targets=targets, precisions=precisions, devices=devices, set=set)
    for name in targets or ():  # a plan takes a while: what it does not depend on is refused first
        open_format(name)
    on = tuple(devices) if devices is not None else _set_devices(set)
    open_devices(on)
    if out is not None:
        refuse_foreign(Run(out).root)
    elif update and (data is None or not has_work(Run(plan.default_out(data)))):
        raise UserError("--update trains a run again on the images as they are now; name the run with --out")
    gates: dict[str, Any] = {
        "max_drop": max_drop,
        "min_agreement": min_agreement,
        "max_size": max_size,
        "max_p90": max_p90,
        "min_accuracy": min_accuracy,
    }
    limits = replaced(Recipe(), check=gates).check
    gates = {name: None if value is None else getattr(limits, name) for name, value in gates.items()}  # plain numbers
    sizing = {"minutes": minutes, "max_ms": max_ms, "max_mb": max_mb}
    sizing = {name: None if value is None else positive(name, value) for name, value in sizing.items()}
    minutes, max_ms, max_mb = sizing.values()
    options = kept.asked(set, **sizing, targets=targets, precisions=precisions, devices=devices)
    lists = {"export.targets": targets, "export.precisions": precisions, "bench.devices": devices}
    with_lists = [*set, *(f"{key}={json.dumps([*items])}" for key, items in lists.items() if items is not None)]
    limit = Limits(max_ms, max_mb, on[0])
    chosen, planned = plan.recipe_for(data, recipe, with_lists, out, minutes, limit, force, options)
    asked = precisions is not None or max_drop is not None or min_agreement is not None
    out = out or plan.default_out(chosen.data.source)
    kept_from_run = (
        recipe is None and kept.deployed(Run(out)) and (data is None or plan.planned_for(Run(out).root, data))
    )
    resolved = replaced(
        chosen,
        check=gates | {"optional": None if kept_from_run and not asked else optional_precisions(chosen, asked, set)},
    )
    _refuse_unknown(resolved)
    resumed = planned is None and recipe is None and (Run(out).root / "recipe.toml").is_file()
    replanned = planned is not None and plan.planned_for(Run(out).root, data)
    with started(out, resolved, force) as run:
        if planned is not None:
            plan.announce(planned)
            plan.write(run, planned)
        if replanned or (resumed and (data is None or expanded(data).is_dir())):  # named sets have recipes of their own
            for line in kept.lines(run, chosen.check, options | kept.asked((), **gates), replanned):
                say(line)
            options = kept.before(run) | options
        for line in kept.repeated(run, resolved) if resumed and force else ():
            say(line)
        kept.keep(run, options)
        force = force or (update and changed(run, resolved))
        images = opened(run, resolved, force, cautioned=planned is not None)  # by the plan
        names, resolved = chain(resolved, images)
        for name in names:
            stage: Callable[..., Any] = importlib.import_module(f"softedge.stages.{name}").stage
            if name == "export" and targets is None and precisions is None:
                stage = functools.partial(stage, again=True)
            images = late.without_lost(run.root, images)  # a stage may have taken hours
            stage(run, resolved, images, force)
        report(run.root)
    return run


def chain(recipe: Recipe, images: Data) -> tuple[list[str], Recipe]:
    """The stages that suit the images, and the recipe for them: without labels the exported models give features."""
    if len(images.train.every):
        left_out = {name for name in NEED_TEST if not getattr(recipe.plan, name)}
        if not mostly_unlabelled(images) and not recipe.distill.backbone:
            left_out.add("distill")
        elif "distill" not in left_out and few_and_many(images):
            left_out.add("finetune")  # no labels to compare on: spread them to the other images instead
        if not len(images.test.every):
            say("no labelled test images: nothing is fine-tuned, since its accuracy could not be measured")
            left_out |= {*NEED_TEST}
        return [name for name in STAGES if name not in left_out], recipe
    return [name for name in STAGES if name not in NEED_LABELS], for_labels(recipe, images)


def _set_devices(set: Sequence[str]) -> tuple[str, ...]:
    """The devices that ``--set`` names, else those of every recipe that says nothing."""
    return config.build({}, [item for item in set if item.startswith("bench.devices")]).bench.devices


def _refuse_unknown(recipe: Recipe) -> None:
    """Refuse an unknown target, device or teacher before hours of training, not after."""
    open_devices(recipe.bench.devices)  # nothing is connected yet
    known_names(recipe)
    refuse_unknown_names(recipe)
