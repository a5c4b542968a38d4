"""Which images the int8 search chooses on: validation images, else training images outside the calibration set; and
how sure a choice is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from softedge.config import Check, Recipe
from softedge.data.images import Data, Images, Uint8
from softedge.eval.measures import Float32, Labels
from softedge.eval.validation import content
from softedge.export.deployed import Deployed
from softedge.export.nearest import FLOOR_DB, SURE_DB, Judge
from softedge.records import InputSpec

TRAINING = 4096  # images that fine-tuning sees
CHOSEN = 768  # images to choose on, at most
POOL = 2  # candidates for each of them, where they are chosen to be as hard as new ones
SURE = 1.28  # standard errors below a measured agreement: nine times in ten the test images agree at least as often
_FEWEST = 64  # images to choose on; with fewer left, calibration images serve again


@dataclass(frozen=True)
class Selection:
    """calibration: uint8 (N, S, S, 3).  judge: the selection images, in random order, with fp32's answers.

    pool: all that fine-tuning may see.  how: which images were selected, in words.  apart: none of them calibrates.
    """

    calibration: Uint8
    judge: Judge
    pool: Images
    spec: InputSpec
    how: str
    apart: bool = True

    @cached_property
    def training(self) -> Uint8:
        """Images to fine-tune on, (N, S, S, 3); read when they are asked for: they are many."""
        return self.pool.prepared(self.spec)


def select(
    data: Data,
    recipe: Recipe,
    deployed: Deployed,
    validation_top1: float | None = None,
    unseen: Images | None = None,
) -> Selection:
    """Draw calibration images (those of the export), selection images apart from them, and images to fine-tune on.

    All are pretraining images; the test images are not touched.  fp32 may have been trained on these images, and is
    surer of those than of new ones, so that a file agrees with it more often.  Hence:

    - Where the classifier's stage held enough images back from training (unseen), those are selected, and none of them
      calibrates or trains.
    - Else, where enough of them are unlabelled, those are selected: the classifier has never learned an answer to them.
    - Else, where the classifier's stage measured its accuracy on a validation part of the training images
      (validation_top1), as many of the selected images are answered wrongly by fp32 (``as_hard``).
    - Else they are a plain sample, and what is assumed is that fp32 is not much surer of them than of new images.
    """
    pool = data.pretrain if len(data.pretrain.every) else data.train
    every = np.random.default_rng(recipe.seed).permutation(len(pool.every))  # as export.calibration draws them
    count = recipe.export.calibration_images
    apart = len(every) - count >= _FEWEST
    order, calibration = pool.left(every), pool.left(every[:count])
    rest = pool.left(every[count:] if apart else every[::-1])
    if unseen is not None and deployed.output == "probabilities":
        selection = _held_back(unseen, pool, calibration, order, deployed)
        if selection is not None:
            return selection
    labels = np.asarray(pool.labels)
    unlabelled, how = rest[labels[rest] < 0], "a sample"
    if len(unlabelled) >= _FEWEST and len(unlabelled) < len(rest):
        rest, how = unlabelled, "unlabelled ones, which the classifier was not trained on"
    matched = validation_top1 is not None and deployed.output == "probabilities" and bool((labels[rest] >= 0).all())
    rest = rest[: POOL * CHOSEN if matched else CHOSEN]
    images = _in_order(rest, lambda chosen: pool.subset(chosen).prepared(deployed.spec))
    answers = deployed.predict(images)
    chosen = np.arange(len(rest))
    if matched and validation_top1 is not None:
        most = min(CHOSEN, max(len(rest) // 2, min(len(rest), _FEWEST)))
        chosen = as_hard(answers, labels[rest], validation_top1, most)
        how = f"fp32 is right on {100 * validation_top1:.1f} % of them, as on its validation images"
    return Selection(
        pool.subset(np.sort(calibration)).prepared(deployed.spec),
        Judge(images[chosen], answers[chosen], deployed.output),
        pool.subset(np.sort(order[:TRAINING])),
        deployed.spec,
        f"{len(chosen)} training images{'' if apart else ', calibration images among them'}: {how}",
        apart,
    )


def _held_back(
    unseen: Images, pool: Images, calibration: NDArray[np.int64], order: NDArray[np.int64], deployed: Deployed
) -> Selection | None:
    """The images that the network was not trained on, without those that calibrate; None where they are too few."""
    calibrating = {content(pool, index) for index in calibration}
    held = [content(unseen, index) for index in range(len(unseen))]
    new = [index for index, image in enumerate(held) if image not in calibrating]
    if len(new) < _FEWEST:
        return None
    chosen = np.random.default_rng(0).permutation(new)[:CHOSEN]
    images = _in_order(chosen, lambda some: unseen.subset(some).prepared(deployed.spec))
    apart = set(held)
    training = [index for index in np.sort(order[:TRAINING]) if content(pool, index) not in apart]
    return Selection(
        pool.subset(np.sort(calibration)).prepared(deployed.spec),
        Judge(images, deployed.predict(images), deployed.output, unseen=True),
        pool.subset(training),
        deployed.spec,
        f"{len(chosen)} validation images, which the network was not trained on",
    )


def _in_order(indices: NDArray[np.int64], read: Callable[[NDArray[np.int64]], Uint8]) -> Uint8:
    """Images in the order of ``indices``, read in ascending order: neighbours on disk come together."""
    ascending = np.argsort(indices, kind="stable")
    images = read(indices[ascending])
    result = np.empty_like(images)
    result[ascending] = images
    return result


def margins(fp32: Float32) -> NDArray[np.float64]:
    """Distance (N,) between the logits of the best and the second best class, from probabilities (N, C)."""
    if fp32.shape[1] < 2:
        return np.zeros(len(fp32))
    best = np.partition(fp32.astype(np.float64), -2, axis=1)[:, -2:]
    return np.diff(np.log(np.maximum(best, 1e-12)), axis=1)[:, 0]


def as_hard(fp32: Float32, labels: Labels, top1: float, count: int) -> NDArray[np.int64]:
    """Indices, in random order, of ``count`` images; fp32 is right on a share ``top1`` of them, never more than of all.

    fp32: probabilities (N, C).  labels: (N,).  Where too few are wrong, the right ones with the smallest margins stand
    in for them: a network that has learned its training images by heart is wrong on none.
    """
    right = fp32.argmax(1) == labels
    wanted = count - round(min(top1, float(right.mean())) * count)
    wrong = np.flatnonzero(~right)[:wanted]
    correct = np.flatnonzero(right)
    close = correct[np.argsort(margins(fp32[correct]), kind="stable")[: wanted - len(wrong)]]
    easy = np.setdiff1d(correct, close)[: count - len(wrong) - len(close)]
    return np.random.default_rng(0).permutation(np.concatenate([wrong, close, easy]))


def broken(measures: Mapping[str, float | int]) -> list[str]:
    """Why a file is rejected however often it agrees: constant answers agree with the largest class."""
    noise = float(measures["sqnr_db"])
    return [] if noise >= FLOOR_DB else [f"signal to noise {noise:.1f} dB is below {FLOOR_DB:g}"]


def promised(measures: Mapping[str, float | int]) -> Mapping[str, float | int]:
    """The measures with the agreement to expect of new images, where it is known, in place of the counted one."""
    return {**measures, "agreement": measures["expected_agreement"]} if "expected_agreement" in measures else measures


def doubts(measures: Mapping[str, float | int], gates: Check, n_test: int) -> list[str]:
    """Why agreement on the selection images does not promise that of ``n_test`` test images; empty when it does.

    Of images that the network was not trained on, the agreement to expect is asked, s its standard error:

        a - z sqrt(s^2 + g (1 - g) / n_test) >= g,   a: expected agreement, g: the gate

    Of images that it was trained on: a noisy file promises nothing (``SURE_DB``), however many answers agree.  Of an
    EfficientNet-Lite0 whose int8 file had 19 dB, 99.2 % agreed on training images, which the network is sure of, and
    96.2 % on new ones; of one with 12 dB, all 64 and 17 of 21.  Where every answer of a file with less noise agrees,
    the images cannot ask for more.  Else

        a - z sqrt(g (1 - g) (1/n + 1/n_test)) >= g,   a: agreement on n images, g: the gate

    Both samples are finite, so both widen the margin (normal approximation at the gate).
    """
    gate = gates.min_agreement
    if "expected_agreement" in measures:
        expected = float(measures["expected_agreement"])
        margin = SURE * math.hypot(measures["expected_error"], math.sqrt(gate * (1 - gate) / max(n_test, 1)))
        if expected - margin >= gate or expected == 1.0:
            return []
        return [f"agreement {expected:.3f} expected on new images, less {margin:.3f} for chance, is below {gate:g}"]
    if "agreement" not in measures:
        return []
    if (noise := float(measures["sqnr_db"])) < SURE_DB:
        return [f"signal to noise {noise:.1f} dB is below {SURE_DB:g}"]
    if measures["agreement"] == 1.0:
        return []
    n = int(measures["n"])
    margin = SURE * math.sqrt(gate * (1 - gate) * (1 / n + 1 / max(n_test, 1)))
    if float(measures["agreement"]) - margin >= gate:
        return []
    return [
        f"agreement {measures['agreement']:.3f} on {n} selection images, less {margin:.3f} for chance, "
        f"is below {gate:g}"
    ]
