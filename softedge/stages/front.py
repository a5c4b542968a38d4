"""How accurate the networks and input sizes of ``fitting`` are, before anything is trained: the accuracy-latency front.

A linear layer on the frozen features of the starting weights answers labelled training images while they are held out:
which pixels the images need, not what fine-tuning will reach.  No test image is asked.  The trained classifier could
not say it: at other sizes than its own it loses accuracy that training there would give back
(https://arxiv.org/abs/1906.06423).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from softedge.config import Recipe
from softedge.data.decoding import BadImage, prepare
from softedge.data.images import ArrayImages, EncodedImages, Images
from softedge.eval.validation import LEAST
from softedge.records import InputSpec
from softedge.stages.counts import FORWARD, Pace
from softedge.stages.fitting import Fit
from softedge.stages.opening import replaced

if TYPE_CHECKING:
    from softedge.data.examining import Examined
    from softedge.data.splitting import Item

MOST = 500  # images: the standard error of an accuracy is 2 points or so
_SECONDS, _SHARE = 60.0, 0.1  # of computing features, at most; and of the minutes of the plan
_MARGIN = 0.02  # a smaller size is named where it is surely less than this below
_CERTAIN = 1.645  # standard errors: 95 %, one-sided
NO_LABELS = f"no accuracy at these sizes: it takes {LEAST} labelled training images, of two classes"
NO_WEIGHTS = "no accuracy at these sizes: random weights have none before training"
NO_TIME = f"no accuracy at these sizes: features of {LEAST} images take more than a tenth of the minutes"

Key = tuple[str, int]  # network and pixels


def affordable(sizes: Sequence[int], pace: Pace, minutes: float) -> int:
    """Images whose features at all of ``sizes`` fit into the time, at most ``MOST``."""
    seconds = min(_SECONDS, 60 * _SHARE * minutes)
    return int(min(MOST, seconds / max(1e-9, FORWARD * sum(map(pace.at, sizes)))))


def drawn(examined: Examined, most: int, seed: int) -> list[Item]:
    """Labelled training images, ``most`` at random, one of pictures that are alike: no fold must know another's.

    Empty where they are fewer than ``LEAST``, or of one class.
    """
    copies = {pair.other_name for pair in examined.near}
    distinct: dict[str, Item] = {}
    for item in examined.items:
        if item.split == "train" and item.label >= 0 and item.name not in copies:
            distinct.setdefault(item.content or item.sha256, item)
    known = list(distinct.values())
    found = [known[index] for index in np.sort(np.random.default_rng(seed).permutation(len(known))[:most])]
    return found if len(found) >= LEAST and len({item.label for item in found}) > 1 else []


def judged(
    fits: Sequence[Fit], starts: Mapping[str, Recipe], examined: Examined, items: Sequence[Item]
) -> tuple[tuple[Fit, ...], dict[Key, NDArray[np.bool_]]]:
    """``fits`` with the accuracy of those that ``starts`` (network -> recipe with its weights) has; and who is right.

    items: from ``drawn``.  The answers (N,) are of the same images everywhere, in the same order.
    """
    from softedge import backbones
    from softedge.eval import linear
    from softedge.eval.features import extract

    specs = {
        name: _specs(recipe, [fit.size for fit in fits if fit.network == name], examined)
        for name, recipe in starts.items()
    }
    images = _shrunk(examined, items, max(spec.resize for own in specs.values() for spec in own.values()))
    if len(images) < LEAST:
        return tuple(fits), {}
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    right: dict[Key, NDArray[np.bool_]] = {}
    for name, recipe in starts.items():
        backbone = backbones.build(recipe.backbone, seed=recipe.seed).to(place)
        for size, spec in specs[name].items():
            features, classes = extract(backbone, images, spec), int(images.labels.max()) + 1
            decays = recipe.probe.weight_decays
            right[name, size] = linear.held_out_right(features, images.labels, classes, decays, recipe.seed)
    right = {key: answers for key, answers in right.items() if len(answers)}
    return tuple(_with_top1(fit, right.get((fit.network, fit.size))) for fit in fits), right


def _with_top1(fit: Fit, right: NDArray[np.bool_] | None) -> Fit:
    return fit if right is None else replace(fit, top1=round(float(right.mean()), 4), images=len(right))


def lines(fits: Sequence[Fit], right: Mapping[Key, NDArray[np.bool_]], network: str, size: int) -> list[str]:
    """What the accuracies are; and the fewest pixels that are as good as the planned ones, where fewer are."""
    asked = max(fit.images for fit in fits)
    error = max(math.sqrt(fit.top1 * (1 - fit.top1) / fit.images) for fit in fits if fit.top1 is not None)
    said = [
        f"top-1 is that of a linear layer on frozen features of the starting weights, {asked} training images held "
        f"out in turn (standard error {error:.3f}); fine-tuning reaches more"
    ]
    own = {fit.size: fit for fit in fits if fit.network == network and fit.top1 is not None}
    fewer = None
    for less in sorted((less for less in own if less < size), reverse=True):
        if size not in own or not as_good(right[network, less], right[network, size]):
            break
        fewer = less
    before, after = own[size].p90_ms if fewer else None, own[fewer].p90_ms if fewer else None
    if before and after and after < before:
        said.append(
            f"{fewer} pixels are as accurate by this measure (not {_MARGIN * 100:.0f} points below, 95 % certain) and "
            f"take {after / before:.2f} of the time: --set data.size={fewer}"
        )
    return said


def as_good(smaller: NDArray[np.bool_], larger: NDArray[np.bool_]) -> bool:
    """Whether an accuracy is less than ``_MARGIN`` below another on the same images (N,), with 95 % certainty.

    One disagreement more than there is: a handful of images that agree prove nothing.
    """
    difference = float(smaller.mean() - larger.mean())
    error = math.sqrt(np.count_nonzero(smaller != larger) + 1) / len(smaller)
    return difference - _CERTAIN * error > -_MARGIN


def _specs(recipe: Recipe, sizes: Sequence[int], examined: Examined) -> dict[int, InputSpec]:
    from softedge.data.examining import input_spec

    def at(size: int) -> InputSpec:
        resize = recipe.data.resize if recipe.data.resize >= size else 0  # set for a smaller size
        return input_spec(examined, replaced(recipe, data={"size": size, "resize": resize}))

    return {size: at(size) for size in sizes}


def _shrunk(examined: Examined, items: Sequence[Item], side: int) -> Images:
    """The centre of each image, ``side`` pixels wide: decoded once for all sizes.  Without what cannot be read."""
    from softedge.data.index import images_of, root_of

    spec = InputSpec(side, side, (0.0,) * 3, (1.0,) * 3, "bicubic")  # type: ignore[arg-type]
    rows = [(item.name, item.sha256, item.label) for item in items]
    images = images_of(examined.inventory, root_of(examined.inventory), rows, spec, examined.white)
    pixels, kept = [], []
    for index in range(len(images)):
        try:
            whole = images.decode_smaller(index, side) if isinstance(images, EncodedImages) else images.decode(index)
        except BadImage:
            continue  # the data stage says it
        pixels.append(prepare(whole, spec))
        kept.append(index)
    array = np.stack(pixels) if pixels else np.empty((0, side, side, 3), np.uint8)
    return ArrayImages(array, images.labels[kept], [images.names[index] for index in kept])
