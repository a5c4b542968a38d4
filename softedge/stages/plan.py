"""``softedge plan``: network, pixels, stages and minutes for a folder of images on this machine, before anything runs.

``deploy`` follows the same plan and keeps it in the run as plan.json; a run that is resumed keeps its plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge import backbones, config, registry
from softedge.bench.base import open_device
from softedge.config import Recipe
from softedge.data.naming import text_of
from softedge.data.sources import canonical
from softedge.errors import UserError, positive
from softedge.eval.validation import LEAST
from softedge.files import expanded
from softedge.progress import CAUTION, plural, say
from softedge.records import SIZES
from softedge.run import Run, read_json, write_json
from softedge.ssl import sizing
from softedge.stages import export_minutes, front, kept, spreading, teachers
from softedge.stages.counts import MEASURED_AT, Counts, Pace, counted
from softedge.stages.export import known_names
from softedge.stages.fitting import Limits, disturbed, largest, with_smaller
from softedge.stages.opening import FOLDER_RECIPE, PLAN, choose_recipe, has_work, replaced
from softedge.stages.overridden import with_epochs, with_least_steps
from softedge.stages.planned import Plan
from softedge.stages.planning import choose, sizes_for, with_student
from softedge.stages.spreading_plan import within
from softedge.weights import packages, starting

if TYPE_CHECKING:
    from softedge.data.draws import View
    from softedge.data.examining import Examined
    from softedge.ssl.method import Method

_TUNING = 3  # the part of the minutes, one in so many, that fine-tuning an int8 file may take, where it comes to that
NO_LIMITS = Limits()
NO_OPTIONS: Mapping[str, str] = {}
STUDENTS = (
    "mobilenetv3_small_100",
    "mobilenetv3_small_075",
    "mobilenetv3_small_050",
)  # for devices too small for Lite0
GIVEN_RECIPE = "photos"  # for folders where there are weights to start from


def plan(
    data: str | Path,
    minutes: float = 15.0,
    set: Sequence[str] = (),
    max_ms: float | None = None,
    max_mb: float | None = None,
    device: str = "local",
) -> Plan:
    """What ``deploy`` would do with a folder of images in about ``minutes``; trains nothing, writes nothing.

    max_ms, max_mb: what an image may take on the device (p90) and a file may weigh: they limit the input size, and
    choose a smaller network, taught by the larger one, where that meets them at no size.
    """
    data, minutes = text_of(data), positive("minutes", minutes)
    max_ms, max_mb = (None if n is None else positive(name, n) for name, n in (("max_ms", max_ms), ("max_mb", max_mb)))
    if not expanded(data).is_dir():
        raise UserError(f"--data {data} is not a folder; plans are for folders of images, the named sets have recipes")
    open_device(device)  # nothing is connected yet; a mistyped one is refused where no limit is measured on it, too
    return _made(data, minutes, set, Limits(max_ms, max_mb, device))[0]


def recipe_for(
    data: str | None,
    recipe: str | None,
    set: Sequence[str] = (),
    out: str | Path | None = None,
    minutes: float | None = None,
    limits: Limits = NO_LIMITS,
    force: bool = False,
    given: Mapping[str, str] = NO_OPTIONS,
) -> tuple[Recipe, Plan | None]:
    """The recipe of a deployment, and its plan where it was planned now.

    A named recipe, a named data set and the recipe of an existing run are taken as they are; ``--set`` wins over all.
    UserError for a run that was planned for other minutes, unless ``force`` does all of it again: with ``minutes`` by a
    new plan, with what earlier starts were given and this one was not.  given: its options, as of ``kept.asked``.
    """
    if data is None and recipe is None and out is not None:
        data = _planned_for(Run(out).root)
    folder = data is not None and expanded(data).is_dir()
    if folder and out is None and data is not None:
        out = default_out(data)
    anew = force and minutes is not None
    if out is not None and recipe is None and not anew and (before := _kept(out, data, minutes, limits)):
        resumed = config.build(before.model_dump(mode="json"), set)
        if resumed == before or not folder or has_work(Run(out)):  # else a new plan costs nothing
            return resumed, None
    if folder and out is not None and recipe is None:
        if minutes is not None and not force:
            _refuse_other_minutes(Run(out).root, minutes)
        if planned_for(Run(out).root, data):
            minutes = minutes or _minutes_of(Run(out).root)
            set, limits = kept.carried(Run(out), set, limits, given)
    if recipe is not None or not folder or data is None:
        if minutes is not None:
            raise UserError("--minutes plans for a folder of images without --recipe; here set ssl.epochs instead")
        if limits:
            raise UserError(
                "--max-ms and --max-mb choose input size and network of a planned folder; here set data.size instead"
            )
        chosen = _resolved(choose_recipe(data, recipe, set, out))
        if chosen.backbone.weights not in starting.NAMED:
            backbones.refuse_misfit(chosen.backbone)
        return chosen, None
    made, chosen = _made(data, minutes if minutes is not None else config.Plan().minutes, set, limits)
    return chosen, made


def default_out(source: str) -> str:
    """The run folder where none is named."""
    return f"runs/{expanded(source).resolve().name}"


def write(run: Run, chosen: Plan) -> None:
    """Keep the plan in the run."""
    write_json(run.root / PLAN, chosen.to_dict())


def _kept(out: str | Path, data: str | None, minutes: float | None, limits: Limits) -> Recipe | None:
    """The recipe of a run that was planned for the same data, minutes and limits; None to plan anew."""
    root = Run(out).root
    if not (root / PLAN).is_file() or not (root / "recipe.toml").is_file():
        return None
    recipe = config.load(str(root / "recipe.toml"))
    same_data = data is None or canonical(data) == canonical(recipe.data.source)
    same_minutes = minutes is None or read_json(root / PLAN).get("minutes") == minutes
    same_ms = limits.max_ms is None or recipe.check.max_p90 == limits.max_ms
    same_mb = limits.max_mb is None or recipe.check.max_size == int(limits.max_mb * 1e6)
    return recipe if same_data and same_minutes and same_ms and same_mb else None


def planned_for(root: Path, data: str | None) -> bool:
    """Whether a run was planned, for these images (None: whichever)."""
    source = _planned_for(root)
    return source is not None and (data is None or canonical(data) == canonical(source))


def _planned_for(root: Path) -> str | None:
    """The folder of images that a run was planned for; None for others."""
    if not (root / PLAN).is_file() or not (root / "recipe.toml").is_file():
        return None
    return config.load(str(root / "recipe.toml")).data.source


def _minutes_of(root: Path) -> float | None:
    before = read_json(root / PLAN).get("minutes") if (root / PLAN).is_file() else None
    return before if isinstance(before, int | float) else None


def _refuse_other_minutes(root: Path, minutes: float) -> None:
    if not (root / PLAN).is_file() or not any(root.rglob("result.json")):
        return
    before = _minutes_of(root)
    if before != minutes:
        told = plural(before, "minute", written="{:g}".format) if before is not None else "other minutes"
        raise UserError(
            f"{root} was planned for {told}, and --minutes {minutes:g} would train another network: "
            "use another --out, or --force to do all of it again"
        )


def _made(data: str, minutes: float, set: Sequence[str], limits: Limits) -> tuple[Plan, Recipe]:
    from softedge.data.describing import facts as facts_of
    from softedge.data.examining import examine

    base = own = _based(data, set)
    backbones.refuse_misfit(base.backbone)  # before a run folder keeps the name of weights that it cannot start from
    examined = examine(data, base)
    facts = facts_of(examined, base)
    for line in facts["notices"]:
        if line.startswith(CAUTION):  # the rest comes with the data stage
            say(line)
    counts = dataclasses.replace(counted(facts), scratch=base.plan.scratch, exported=export_minutes.share(base))
    pace = own_pace = _pace(base.backbone)
    counts = _suited(counts, base, pace, minutes)
    network = base.backbone
    only = base.data.size if any(item.startswith("data.size") for item in set) else 0
    sizes = [only] if only else sizes_for(counts)
    fits = largest(base, sizes, limits, _smaller(base, counts, set)) if limits else ()
    at_most = fits[-1].size if fits else SIZES[-1]
    smaller = bool(fits) and fits[-1].network != network.name
    if smaller and _taught(counts, set):
        student = config.Backbone(name=fits[-1].network, weights="random")
        chosen = with_student(
            counts, network.name, network.weights, pace, minutes, fits[-1], _pace(student), base.finetune.batch
        )
    else:
        if smaller:
            base = _based(data, set, fits[-1].network)
            pace = _pace(base.backbone)
            counts = _suited(counts, base, pace, minutes)
        start = base.backbone
        chosen = choose(counts, start.name, start.weights, pace, minutes, base.finetune.batch, at_most, only=only)
    if base.backbone.name != network.name:
        chosen = dataclasses.replace(chosen, notes=(*chosen.notes, f"{network.name} does not meet {limits.text()}"))
    chosen = dataclasses.replace(chosen, fits=fits, notes=(*chosen.notes, *disturbed(fits, limits)))
    if limits.max_ms is not None:
        starts = {recipe.backbone.name: recipe for recipe in (own, base) if recipe.backbone.weights != "random"}
        chosen = _with_accuracy(chosen, starts, examined, sizes, limits, own_pace)
    pretrained = chosen.values.get("ssl.epochs") or any(item.startswith("ssl.epochs") for item in set)
    if pretrained and 2 <= counts.pretrain < base.ssl.batch:
        chosen = dataclasses.replace(chosen, values=chosen.values | {"ssl.batch": sizing.batch_for(counts.pretrain)})
    values: dict[str, dict[str, Any]] = {}
    for key, value in chosen.values.items():
        section, name = key.split(".")
        values.setdefault(section, {})[name] = value
    tuning = max(0.01, round(minutes / _TUNING, 2))  # short in messages and in the recipe
    values["quantize"] = {"tune_minutes": min(base.quantize.tune_minutes, tuning)}
    if limits.max_ms is not None:
        values["check"] = {"max_p90": limits.max_ms}
    if limits.max_mb is not None:
        values.setdefault("check", {})["max_size"] = int(limits.max_mb * 1e6)
    planned = replaced(base, **values)
    first = config.build(planned.model_dump(mode="json"), set, source="the plan with --set")
    stepped = with_least_steps(planned, first, counts)
    recipe = _resolved(config.build(stepped.model_dump(mode="json"), set, source="the plan with --set"))
    return _with_search(with_epochs(chosen, planned, recipe, counts, pace), recipe), recipe


def _with_search(chosen: Plan, recipe: Recipe) -> Plan:
    """The plan with the minutes that a search for better int8 files adds: whether there is one is not known before.

    Roughly, a file's: a run on a busy machine took 4, 7 and 1 minutes for three files where this says 3 each.
    """
    *before, last = chosen.steps
    if "int8" not in recipe.export.precisions or not recipe.quantize.search:
        return chosen
    each = plural(max(1, round(last.minutes + recipe.quantize.tune_minutes)), "minute")
    what = f"{last.what}; an int8 file that may fail its gate is searched for a better one, roughly {each} more"
    if len(recipe.export.targets) > 1:
        what = f"{what} for each of {len(recipe.export.targets)} formats"
    return dataclasses.replace(chosen, steps=(*before, dataclasses.replace(last, what=what)))


def _with_accuracy(
    chosen: Plan, starts: Mapping[str, Recipe], examined: Examined, sizes: Sequence[int], limits: Limits, pace: Pace
) -> Plan:
    """The plan with the accuracies of what was measured on the device, or a line that says why there are none.

    starts: network -> recipe with its weights.  pace: of the largest network.
    """
    *_, last = chosen.fits
    if last.network not in starts:
        return dataclasses.replace(chosen, notes=(*chosen.notes, front.NO_WEIGHTS))
    recipe = starts[last.network]
    asked = {(fit.network, fit.size) for fit in chosen.fits if fit.network in starts}
    asked |= {(last.network, size) for size in sizes if size < last.size}
    most = front.affordable([size for _, size in asked], pace, chosen.minutes)
    items = front.drawn(examined, most, recipe.seed)
    if not items:
        why = front.NO_TIME if most < LEAST else front.NO_LABELS
        return dataclasses.replace(chosen, notes=(*chosen.notes, why))
    fits = with_smaller(chosen.fits, recipe, sizes, limits)
    say(f"size: how accurate they are, on {len(items)} training images and frozen features")
    fits, right = front.judged(fits, starts, examined, items)
    said = front.lines(fits, right, last.network, chosen.size) if right else [front.NO_LABELS]
    return dataclasses.replace(chosen, fits=fits, notes=(*chosen.notes, *said))


def _based(data: str, set: Sequence[str], network: str | None = None) -> Recipe:
    """The recipe to plan with, its weights resolved: one for starting weights where there are any.  None: its own."""

    def of(recipe: str) -> Recipe:
        chosen = choose_recipe(data, recipe, set)
        return _resolved(replaced(chosen, backbone={"name": network}) if network else chosen)

    given = of(GIVEN_RECIPE)
    return given if given.backbone.weights != "random" else of(FOLDER_RECIPE)


def _taught(counts: Counts, set: Sequence[str]) -> bool:
    """Whether a network that is too small for the recipe's weights learns from the recipe's, rather than alone.

    Where most images have labels it learns more from these in the same minutes (benchmarks/results/starting.md): the
    teacher's own training takes many of them.  A teacher whose weights are given is meant.
    """
    return counts.taught > 0 or any(item.startswith(("backbone.weights", "distill.")) for item in set)


def _suited(counts: Counts, recipe: Recipe, pace: Pace, minutes: float) -> Counts:
    """``counts`` with what depends on the network: views of pretraining, and features that fit into the minutes."""
    counts = dataclasses.replace(counts, views=len(views(recipe)), beside=_beside(recipe))
    weights = recipe.backbone.weights
    larger = weights == "package" and not recipe.ssl.epochs  # measured with these weights as they are
    return within(counts, weights != "random", SIZES[-1], pace, minutes, larger)


def _beside(recipe: Recipe) -> tuple[tuple[str, float], ...]:
    """The networks with weights here that few labels could spread over besides, and what an image costs each."""
    if recipe.distill.spread_over != ("auto",):
        return ()
    names = [name for name in spreading.networks(recipe) if name not in (spreading.OWN, spreading.WORDS)]
    return tuple((name, packages.PACKAGES[name].cost) for name in names)


def _pace(backbone: config.Backbone) -> Pace:
    from softedge.eval.pace import measured

    seconds, threads = measured(backbone, MEASURED_AT)
    return Pace(seconds, threads)


def views(recipe: Recipe) -> tuple[View, ...]:
    """The views that pretraining takes of an image."""
    method: type[Method] = registry.lookup(registry.METHODS, recipe.ssl.method, "method")
    return method.views(recipe, recipe.data.size)


def _smaller(recipe: Recipe, counts: Counts, set: Sequence[str]) -> tuple[str, ...]:
    """Networks that the recipe's could teach where it is too slow or too large; none where a network was named.

    A teacher needs labels, and weights to start from.
    """
    named = any(item.startswith(("backbone.name", "plan.distill", "export.source")) for item in set)
    can_teach = counts.train and counts.test and recipe.backbone.weights != "random"
    return STUDENTS if can_teach and not named else ()


def _resolved(recipe: Recipe) -> Recipe:
    """The recipe with weights "auto" replaced by what they are here, once: a run must not change its start later.

    What cannot be exported, or taught by, is refused before the weights are looked up.
    """
    known_names(recipe)
    teachers.refuse_unknown_names(recipe)
    if recipe.backbone.weights != "auto":
        return recipe
    return replaced(recipe, backbone={"weights": starting.resolve(recipe.backbone).weights})


def announce(chosen: Plan) -> None:
    """The plan, before it is followed."""
    for line in chosen.text().splitlines():
        say(line)
