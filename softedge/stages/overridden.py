"""A plan whose epochs ``--set`` has changed: the lines of these stages, and their minutes, are for what was set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from softedge.config import Recipe
from softedge.progress import plural
from softedge.stages.counts import Counts, Pace
from softedge.stages.opening import replaced
from softedge.stages.planned import Plan, PlannedStage
from softedge.stages.planning import NOT_PRETRAINED, least_steps, tuned_on
from softedge.stages.spreading_plan import spreading_minutes

SECTIONS = {"pretrain": "ssl", "finetune": "finetune", "distill": "distill"}  # stage -> where its epochs are set


def with_epochs(chosen: Plan, planned: Recipe, recipe: Recipe, counts: Counts, pace: Pace) -> Plan:
    """``chosen`` for the epochs of ``recipe``, which is ``planned`` and ``--set``, and a note for each that differs.

    counts, pace: what it was planned with, of the network that is fine-tuned.
    """
    if not any(_changed(planned, recipe, step.stage) for step in chosen.steps):
        return chosen
    made: dict[str, PlannedStage] = {}
    for step in chosen.steps:
        changed = _STAGES.get(step.stage)
        if changed and _changed(planned, recipe, step.stage):
            step = changed(step, planned, recipe, counts, pace)
        if step.stage == "scratch":  # as long as both
            step = replace(step, minutes=sum(made[name].minutes for name in ("pretrain", "finetune") if name in made))
        made[step.stage] = step
    found = replace(chosen, steps=tuple(made.values()))
    return replace(found, notes=(*chosen.notes, *_notes(found, planned, recipe)))


def with_least_steps(planned: Recipe, recipe: Recipe, counts: Counts) -> Recipe:
    """``planned`` with the fewest steps for the epochs of ``recipe``: those of more epochs would undo fewer."""
    images = {"finetune": counts.train, "distill": counts.pretrain}
    changed = {
        section: {"min_steps": least_steps(getattr(recipe, section).epochs, images[section], recipe.finetune.batch)}
        for section in images
        if _changed(planned, recipe, section)
    }
    return replaced(planned, **changed) if changed else planned


def _changed(planned: Recipe, recipe: Recipe, stage: str) -> bool:
    section = SECTIONS.get(stage)
    return bool(section) and _epochs(planned, stage) != _epochs(recipe, stage)


def _epochs(recipe: Recipe, stage: str) -> int:
    return int(getattr(recipe, SECTIONS[stage]).epochs)


def _notes(found: Plan, planned: Recipe, recipe: Recipe) -> list[str]:
    before = {step.stage: _epochs(planned, step.stage) for step in found.steps if _changed(planned, recipe, step.stage)}
    over = found.total - found.minutes
    beyond = f"; about {over:.0f} minutes beyond --minutes {found.minutes:g} in all" if over >= 1 else ""
    return [
        f"--set {SECTIONS[stage]}.epochs={_epochs(recipe, stage)} in place of the {epochs} planned{beyond}"
        for stage, epochs in before.items()
    ]


def _pretrain(step: PlannedStage, planned: Recipe, recipe: Recipe, counts: Counts, pace: Pace) -> PlannedStage:
    epochs, warned = recipe.ssl.epochs, f"; {NOT_PRETRAINED}" if not planned.ssl.epochs else ""
    what = f"{plural(epochs, 'epoch')} on {counts.pretrain:,} images{warned}" if epochs else "left out: ssl.epochs = 0"
    return replace(step, what=what, minutes=counts.views * epochs * counts.pretrain * pace.at(recipe.data.size) / 60)


def _finetune(step: PlannedStage, planned: Recipe, recipe: Recipe, counts: Counts, pace: Pace) -> PlannedStage:
    tuning = recipe.finetune
    what, seen = tuned_on(counts, tuning.epochs, tuning.min_steps * tuning.batch)
    return replace(step, what=what, minutes=seen * pace.at(recipe.data.size) / 60)


def _distill(step: PlannedStage, planned: Recipe, recipe: Recipe, counts: Counts, pace: Pace) -> PlannedStage:
    """In proportion: its network and its pixels may be others than those that are fine-tuned."""

    def epochs(recipe: Recipe) -> float:
        return max(recipe.distill.epochs, recipe.distill.min_steps * recipe.finetune.batch / counts.pretrain)

    before, now = epochs(planned), epochs(recipe)
    once = spreading_minutes(counts, recipe.backbone.weights != "random", recipe.data.size, pace)
    what = step.what.replace(f": {plural(round(before), 'epoch')} on ", f": {plural(round(now), 'epoch')} on ")
    return replace(step, what=what, minutes=once + (step.minutes - once) * now / before)


_STAGES: dict[str, Callable[[PlannedStage, Recipe, Recipe, Counts, Pace], PlannedStage]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "distill": _distill,
}
