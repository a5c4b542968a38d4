"""From minutes to a network, pixels and epochs: a pure function of counts and of the seconds an image takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from softedge.eval.validation import TRAINED_FOLDS
from softedge.progress import plural
from softedge.records import SIZES
from softedge.stages.counts import FORWARD, Counts, Pace, minutes_of
from softedge.stages.fitting import Fit
from softedge.stages.planned import Plan, PlannedStage
from softedge.stages.spreading_plan import spread_over, spreading_minutes

_OTHERS = 1.2  # minutes of export, int8 search, check, timing and map, and more for each second that an image takes:
_OTHERS_MORE = 110.0  # 2.5 minutes at 0.014 s (160 pixels) and 5 at 0.038 s (128, a slower machine), both on TrashNet
_GIVEN_EPOCHS = (1, 30)  # of fine-tuning from starting weights: least, most
# Epochs from which a size is taken: with fewer, the next smaller one was about as good at equal cost, and a device
# runs it faster (benchmarks/results/starting.md).
_WORTH = {64: 7, 96: 7, 128: 7, 160: 10, 192: 20, 224: 30}
_TAUGHT_EPOCHS = 10  # at least, for any size, where distillation follows; fewer were not measured there
SSL_EPOCHS = (10, 100)  # of pretraining from random weights, where ``_FEW_TUNED`` of fine-tuning follow
_SSL_WORTH = 30  # of it, for any size
_STUDENT_EPOCHS = (10, 25, 200)  # of distillation into a small network: least, worth more pixels than 96, most
_TEACHERS = 0.4  # of the minutes for training, where a smaller network learns from the one that is fine-tuned
_FEW_PIXELS = 2  # an assumption; 300 grey photos: validation accuracy 0.68 at 64 pixels, 3 minutes; 0.78 at 160, 10
# Epochs of fine-tuning for one of pretraining, which has two views an image. Where most images have labels, these teach
# more in the same minutes (benchmarks/results/starting.md); where few have, distillation on all images follows as well.
_TUNED = 4.0
_FEW_TUNED = 2 / 3
NOT_PRETRAINED = "from ImageNet weights it lowered accuracy on TrashNet (benchmarks/results/starting.md)"


def sizes_for(counts: Counts) -> list[int]:
    """Those up to the one that shows all of the largest image."""
    return [size for size in SIZES if size <= max(SIZES[0], _enough(counts.longer_side))]


def choose(
    counts: Counts,
    network: str,
    weights: str,
    pace: Pace,
    minutes: float,
    batch: int = 32,
    largest: int = SIZES[-1],
    others: float | None = None,
    only: int = 0,
) -> Plan:
    """The most pixels at which enough epochs fit into ``minutes``, else the most epochs at the fewest pixels.

    weights: where ``network`` starts from, "random" or what ``weights.starting.resolve`` says.  batch: of fine-tuning.
    largest: pixels that the device allows (``fitting``).  others: minutes of the stages after training, where they are
    not those of this network.  only: the pixels, where they are not to be chosen.
    """
    given = weights != "random"
    sizes = [only] if only else [size for size in sizes_for(counts) if size <= largest]
    tuning = given and counts.train > 0
    least, most = _GIVEN_EPOCHS if tuning else (_ssl(counts, epochs) for epochs in SSL_EPOCHS)
    worth = {size: _worth(size, counts) if tuning else _ssl(counts, _SSL_WORTH) for size in sizes}
    affordable = {size: _affordable(counts, given, pace, size, minutes, others) for size in sizes}
    size = next((s for s in reversed(sizes) if affordable[s] >= worth[s]), sizes[0])
    enough = worth[size]
    epochs = max(least, int(min(most, affordable[size])))
    notes = []
    if affordable[size] < least:
        notes.append(_too_few(minutes))
    elif (done := max(epochs, _least_epochs(counts, epochs, batch)) if tuning else epochs) < enough:
        notes.append(f"more minutes would help: {enough} epochs are worth more than {done}")
    if not given:
        notes.append(
            "random weights: on a few thousand photos pretrained starting weights are worth up to 25 points of accuracy"
        )
    ssl = 0 if given else epochs
    tuned = (epochs if given else max(1, round(epochs * _tuned(counts)))) if counts.train else 0
    values: dict[str, Any] = {"data.size": size, "ssl.epochs": ssl, "plan.minutes": minutes}
    if ssl:
        values["optim.warmup_epochs"] = max(1, round(ssl / 10))
    if counts.grey:  # both harm where there is no colour, see suggest.py; --set may ask for epochs of pretraining
        values |= {"augment.jitter": 0.0, "augment.grey": 0.0}
    if tuned and pace.threads:
        values["plan.threads"] = pace.threads
    if tuned and counts.taught:
        values |= spread_over(counts, given)
        values |= {"distill.epochs": tuned, "distill.min_steps": least_steps(tuned, counts.taught, batch)}
    if tuned:
        values |= {"finetune.epochs": tuned, "finetune.min_steps": least_steps(tuned, counts.train, batch)}
    least_tuned, least_taught = (values.get(f"{stage}.min_steps", 0) * batch for stage in ("finetune", "distill"))
    steps = _steps(counts, given, ssl, tuned, size, pace, least_tuned, least_taught)
    larger = next((s for s in sizes if s > size), size)
    rest, an_epoch = _costs(counts, given, pace, larger, others)
    more = math.ceil(rest + (worth[larger] if larger > size else most) * an_epoch)
    if larger == size and epochs == most:
        more = 0
    few = few_pixels(size, sizes[-1], minutes, f" ({larger} pixels from about {more} on)")
    return Plan(network, weights, size, minutes, pace.seconds, steps, values, tuple(notes), (), few, more)


def with_student(
    counts: Counts,
    network: str,
    weights: str,
    pace: Pace,
    minutes: float,
    student: Fit,
    student_pace: Pace,
    batch: int = 32,
) -> Plan:
    """A plan for a device that ``network`` is too much for: it is fine-tuned as its teacher, and ``student`` learns.

    Minutes choose the pixels of both, at most those of ``student`` for the student.  The others as in ``choose``.
    """
    spread = counts.few and bool(counts.taught)  # the labels themselves teach, through the features of starting weights
    after = _others(counts, student_pace.at(student.size))
    rest = max(0.0, minutes - after)
    alone = replace(counts, pretrain=counts.train)  # an epoch of distillation is the student's
    plan = choose(alone, network, weights, pace, after + _TEACHERS * rest, batch, others=after)
    *before, last = plan.steps
    steps = [step for step in before if not (spread and step.stage == "finetune")]
    answering = 0.0 if spread else FORWARD * pace.at(plan.size)
    sizes = [size for size in SIZES[1:] if size <= student.size] or [student.size]
    epoch = {size: minutes_of(counts.pretrain * (student_pace.at(size) + answering)) for size in sizes}
    spreading = spreading_minutes(counts, True, plan.size, pace)
    left = rest - sum(step.minutes for step in steps) - spreading
    least, worth, most = _STUDENT_EPOCHS
    size = next((size for size in reversed(sizes) if left >= worth * epoch[size]), sizes[0])
    epochs = max(least, min(most, int(left / max(1e-9, epoch[size]))))
    what = f"{student.network} at {size} pixels learns from it: {epochs} epochs on {counts.pretrain:,} images"
    steps += [PlannedStage("distill", what, epochs * epoch[size] + spreading), replace(last, minutes=after)]
    values = plan.values | spread_over(counts, True)
    values |= {
        "distill.backbone": student.network,
        "distill.size": size,
        "distill.epochs": epochs,
        "distill.min_steps": least_steps(epochs, counts.pretrain, batch),
        "export.source": "distill",
        "plan.minutes": minutes,
    }
    notes = tuple(note for note in plan.notes if note != _too_few(plan.minutes))  # those were the teacher's
    if left < least * epoch[size]:
        notes = (_too_few(minutes),)
    few = few_pixels(size, sizes[-1], minutes)
    changed: dict[str, Any] = {"steps": tuple(steps), "values": values, "notes": notes, "few_pixels": few}
    return replace(plan, minutes=minutes, more_minutes=None, **changed)


def few_pixels(size: int, most: int, minutes: float, larger: str = "") -> str:
    """A clause where the minutes leave half of the pixels or less, a side, that images and device allow.

    larger: its end, from how many minutes on there are more pixels.
    """
    if _FEW_PIXELS * size > most:
        return ""
    why = f"planned at {size} of {most} pixels because of --minutes {minutes:g}"
    return f"{why}: more minutes are likely to be worth more{larger}"


def _too_few(minutes: float) -> str:
    few = plural(minutes, "minute is", "minutes are", "{:g}".format)
    return f"{few} too few here; this is the least that makes sense"


def _steps(
    counts: Counts, given: bool, ssl: int, tuned: int, size: int, pace: Pace, least_tuned: int, least_taught: int
) -> tuple[PlannedStage, ...]:
    """least_tuned, least_taught: images that fine-tuning and distillation see, however few there are."""
    second = pace.at(size)
    what = f"{plural(ssl, 'epoch')} on {counts.pretrain:,} images" if ssl else f"left out: {NOT_PRETRAINED}"
    steps = [PlannedStage("pretrain", what, minutes_of(counts.views * ssl * counts.pretrain * second))]
    if counts.train:
        steps.append(PlannedStage("probe", "a linear layer on frozen features", _probe(counts, second)))
        if counts.tuned:
            what, seen = tuned_on(counts, tuned, least_tuned)
            steps.append(PlannedStage("finetune", what, minutes_of(seen * second)))
        if counts.taught:
            epochs = max(tuned, least_taught / counts.taught)
            spent = epochs * _taught(counts, second) + spreading_minutes(counts, given, size, pace)
            what = "the better classifier answers"
            if counts.spread:
                what = "labels spread to similar images" if counts.few else "the better classifiers answer together"
            what = f"{what}: {plural(round(epochs), 'epoch')} on {counts.taught:,} images, with labels and without"
            steps.append(PlannedStage("distill", what, spent))
        if counts.scratch:
            spent = sum(step.minutes for step in steps if step.stage in ("pretrain", "finetune"))
            steps.append(PlannedStage("scratch", "the labels alone, as long, to compare with", spent))
        spent = minutes_of(counts.test * second * FORWARD) + 0.2
        steps.append(PlannedStage("baselines", "cheap classifiers beside it", spent))
    steps.append(PlannedStage("export", "then check, timing and report", _others(counts, second)))
    return tuple(steps)


def least_steps(epochs: int, images: int, batch: int) -> int:
    """The fewest steps of a planned training: those of its epochs, but no fewer than 20 and no more than 200."""
    return min(200, max(20, epochs * images // batch))


def _least_epochs(counts: Counts, epochs: int, batch: int) -> int:
    """Epochs that ``least_steps`` come to, of the training that labels are for: with few images more than planned."""
    images = counts.tuned or counts.taught
    return round(least_steps(epochs, images, batch) * batch / images)


def tuned_on(counts: Counts, epochs: int, least: int) -> tuple[str, int]:
    """What fine-tuning does, in words, and the images it sees; at least ``least`` in each training, however few."""
    seen = max(epochs * counts.train, least)
    what = f"{plural(round(seen / counts.train), 'epoch')} on {counts.train:,} labelled images"
    if counts.few:  # each fold trains on what the others hold
        seen += max(epochs * counts.train * (TRAINED_FOLDS - 1), TRAINED_FOLDS * least)
        what = f"{what}, and on {TRAINED_FOLDS} parts of them to judge it"
    return what, seen


def _worth(size: int, counts: Counts) -> int:
    """Epochs of fine-tuning starting weights from which ``size`` is worth its time."""
    return max(_WORTH[_enough(size)], _TAUGHT_EPOCHS if counts.taught else 0)


def _tuned(counts: Counts) -> float:
    """Epochs of fine-tuning for one of pretraining from random weights."""
    return _TUNED if counts.train and not counts.taught else _FEW_TUNED


def _ssl(counts: Counts, epochs: int) -> int:
    """Epochs that cost, with what follows, as much as ``epochs`` on two views where few labels follow."""
    return max(1, round(epochs * (2 + _FEW_TUNED) / (counts.views + _tuned(counts))))


def _affordable(counts: Counts, given: bool, pace: Pace, size: int, minutes: float, others: float | None) -> float:
    """Epochs that fit: of fine-tuning from starting weights, else of pretraining with its share of fine-tuning.

    Infinitely many where nothing is trained (starting weights and no labels), if the rest fits.
    """
    rest, an_epoch = _costs(counts, given, pace, size, others)
    if not an_epoch:
        return math.inf if rest <= minutes else 0.0
    return max(0.0, minutes - rest) / max(1e-9, an_epoch)


def _costs(counts: Counts, given: bool, pace: Pace, size: int, others: float | None) -> tuple[float, float]:
    """Minutes of what is no training, and of an epoch of it."""
    second = pace.at(size)
    rest = _probe(counts, second) + 0.2 if counts.train else 0.0
    rest += _others(counts, second) if others is None else others
    labelled = minutes_of(counts.tuned * second * (1 + TRAINED_FOLDS if counts.few else 1)) + _taught(counts, second)
    an_epoch = labelled if given else minutes_of(counts.views * counts.pretrain * second) + _tuned(counts) * labelled
    return rest + spreading_minutes(counts, given, size, pace), an_epoch * (2 if counts.scratch else 1)


def _taught(counts: Counts, second: float) -> float:
    """An epoch of distillation; a network that teaches answers for every view."""
    return minutes_of(counts.taught * second * (1 if counts.few else 1 + FORWARD))


def _probe(counts: Counts, second: float) -> float:
    """Features of all labelled images, once more with random weights, and the classifiers on them."""
    return 2 * minutes_of((counts.train + counts.test) * second * FORWARD) + 0.3


def _others(counts: Counts, second: float) -> float:
    """Minutes of the stages after training.  second: an image takes in a training step of the exported network."""
    return counts.exported * (_OTHERS + _OTHERS_MORE * second)


def _enough(longer_side: int) -> int:
    """The size that shows all of the largest image."""
    return next((size for size in SIZES if size >= longer_side), SIZES[-1])
