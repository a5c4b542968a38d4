"""Settings that suit a data set and a machine: ``softedge recipes suggest --data DIR``.

What the digits showed (configs/digits.toml): with few images and minutes, steps count. So the time is turned into
steps first; batch, queue and momentum follow from the number of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from softedge.errors import UserError, quoted
from softedge.progress import plural

_STEPS = (300, 500_000)  # fewer gain little (benchmarks/results/pretraining.md), more is a recipe of its own
_MEMORY = 0.01  # the key encoder averages about this share of all steps, with a momentum within 0.9 … 0.99


@dataclass(frozen=True)
class Suggestion:
    """Proposed ``--set`` values, why, and about how long it takes."""

    recipe: str
    values: dict[str, float | int | str]
    reasons: tuple[str, ...]
    minutes: float

    def text(self, data: str) -> str:
        """Command and reasons for a terminal."""
        return "\n".join([self.command(data), "", *(f"  {reason}" for reason in self.reasons)])

    def command(self, data: str) -> str:
        """The command to run."""
        sets = " ".join(f"--set {key}={value}" for key, value in self.values.items())
        return f"softedge deploy --data {quoted(data)} --recipe {self.recipe} {sets}"


def suggest(
    images: int, size: int, minutes: float = 30.0, *, seconds: float, most: int, gpus: int = 0, grey: bool = False
) -> Suggestion:
    """Settings for ``images`` images of ``size`` pixels and about ``minutes`` of pretraining.

    seconds: that an image takes in an epoch, all views of it.  most: epochs, where the fewest steps need no more.
    gpus: 0 trains on the CPU.  grey: the images have no colour.
    Raises UserError for fewer images than a batch of 16.
    """
    if images < 16:
        few = plural(images, "image is", "images are")
        raise UserError(f"{few} too few to pretrain on; give at least 16, preferably some hundreds")
    batch = _batch(images, gpus)
    per_epoch = max(images // batch, 1)
    affordable = minutes * 60 / (seconds * batch)
    steps = min(max(affordable, _STEPS[0]), _STEPS[1])
    at_most = max(most, math.ceil(_STEPS[0] / per_epoch))
    epochs = min(max(math.ceil(steps / per_epoch), 1), at_most)
    unused = affordable > (at_most + 1) * per_epoch
    steps = epochs * per_epoch
    recipe = _recipe(images)
    queue = _queue(images, batch)
    momentum = round(min(max(1 - 1 / (_MEMORY * steps), 0.9), 0.99), 3)
    rate = 0.06 * batch / 64 if batch <= 128 else 0.2 * batch / 512
    size_reason = "steps count for more than the batch on few images" if batch <= 128 else "keeps a GPU busy"
    taken = steps * batch * seconds / 60
    minutes_here = f"about {plural(round(taken), 'minute')}" if taken >= 1 else "less than a minute"
    reasons = [
        f"{plural(epochs, 'epoch')} of {plural(per_epoch, 'step')}: {steps:,} steps, {minutes_here} here",
        *([f"more minutes would not be used: {epochs} epochs are the most that are planned"] if unused else []),
        f"batch {batch}: {size_reason}",
    ]
    of_the_queue = [
        f"queue {queue}: at most half an epoch of keys, so that images seldom meet their own",
        f"momentum {momentum:g}: the key encoder averages about {1 / (1 - momentum):.0f} steps of {steps}",
    ]
    if recipe == "light-moco":
        reasons += of_the_queue
    if affordable < _STEPS[0]:
        reasons.append(
            f"{minutes:g} minutes would be {affordable:.0f} steps; below {_STEPS[0]} pretraining gains little: take "
            "the longer time, a smaller data.size, a narrower backbone, or backbone.weights=imagenet"
        )
    if images < 500:
        reasons.append(f"{images} images are few: start from backbone.weights=imagenet or another run's backbone")
    if grey:
        reasons.append(
            "no colour jitter, the images are grey: on TrashNet in grey at 64 pixels k-NN came to 0.64 without it and "
            "to 0.56 with it (one seed, 30 epochs)"
        )
    values: dict[str, float | int | str] = {
        "data.size": size,
        "ssl.epochs": epochs,
        "ssl.batch": batch,
        **({"ssl.queue": queue, "ssl.momentum": momentum} if recipe == "light-moco" else {}),
        "optim.lr": round(rate, 4),
        "optim.warmup_epochs": max(1, round(epochs / 10)),
        **({"augment.jitter": 0.0, "augment.grey": 0.0} if grey else {}),
    }
    return Suggestion(recipe, values, tuple(reasons), taken)


def for_data(source: str, minutes: float = 30.0, size: int = 0, *, most: int) -> Suggestion:
    """Look at a data set, and measure a step of the recipe's network on this machine.

    size: of the input in pixels; 0: chosen from the images.  most: epochs, as in ``suggest``; the recipe may have more.
    """
    import torch

    from softedge import config, registry
    from softedge.data import describe
    from softedge.eval.pace import measured

    facts = describe(source, config.load("small-domain"))
    gpus = torch.cuda.device_count()
    size = size or _size(facts["longer_side"], gpus)
    recipe = config.load(_recipe(facts["n_pretrain"]))
    views = registry.lookup(registry.METHODS, recipe.ssl.method, "method").views(recipe, size)
    seconds = len(views) * measured(recipe.backbone, size)[0]
    most = max(most, recipe.ssl.epochs)
    return suggest(facts["n_pretrain"], size, minutes, seconds=seconds, most=most, gpus=gpus, grey=facts["grey"])


def _recipe(images: int) -> str:
    return "small-domain" if images < 200_000 else "light-moco"


def _size(longer_side: int, gpus: int) -> int:
    """The input that does not enlarge the images much: 32 or 64 for small ones, 128 on a CPU, 224 with a GPU."""
    if longer_side <= 96:
        return 32 if longer_side <= 48 else 64
    return 224 if gpus else 128


def _batch(images: int, gpus: int) -> int:
    """A power of two: at most 64 on a CPU and 512 on GPUs, and four steps an epoch."""
    return max(16, min(512 if gpus else 64, 1 << max(images // 4, 1).bit_length() - 1))


def _queue(images: int, batch: int) -> int:
    """A power of two of at most half an epoch's symmetric keys (one per image), 262,144 at most."""
    return max(2 * batch, min(262_144, 1 << max(images, 2).bit_length() - 1) // (2 * batch) * (2 * batch))
