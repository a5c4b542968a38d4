"""What ``softedge distill`` lets few labels spread over: features of networks side by side, and visual words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softedge import backbones, config, distributed
from softedge.backbones import Backbone
from softedge.config import Recipe
from softedge.data.images import Images
from softedge.errors import UserError
from softedge.eval import validation
from softedge.eval.features import extract
from softedge.eval.measures import unit
from softedge.records import InputSpec
from softedge.run import Run
from softedge.ssl.vocabulary import ShrunkPixels, Vocabulary
from softedge.stages.base import BACKBONE
from softedge.weights import packages, starting
from softedge.weights.preprocessing import Preprocessing

OWN = "run"  # the run's network, in distill.spread_over
WORDS = "words"  # no network: which visual words the images are made of, found among them
SIDE = 96  # pixels that images are described at; at 48 words gave half as much (benchmarks/results/few-labels.md)
_VOCABULARY = {"words": 400, "patch": 6, "grid": 3, "components": 256, "scales": 2}
_WHITENING = 0.75
_FITTED_ON = 5000  # images at most
_GIVEN = ("package", "imagenet")  # starting weights that have seen ImageNet's labels: others that have may join them


@dataclass(frozen=True)
class Ground:
    """What labels spread over.  features: (N, D).  words: (N, W), or None.  folds: (L,), of the labelled images.

    details: where the features are from.
    """

    features: NDArray[np.float32]
    words: NDArray[np.float32] | None
    folds: NDArray[np.int64]
    details: dict[str, Any]


def ground(run: Run, recipe: Recipe, images: Images, labels: NDArray[np.int64], spec: InputSpec) -> Ground:
    """For ``images`` whose ``labels`` (N,) are negative where there is none.  spec: of the run."""
    found, details = features(run, recipe, images, spec)
    described = words(images, described_at(run, spec), recipe.seed) if WORDS in networks(recipe) else None
    folds = validation.folds(images.subset(np.flatnonzero(labels >= 0)), recipe.seed)
    return Ground(found, described, folds, details)


def networks(recipe: Recipe) -> tuple[str, ...]:
    """``distill.spread_over`` without "auto" and repetitions; UserError as in ``refuse_unknown``.

    A run that starts from random weights, or from a file, spreads over its own features and words alone: "auto" brings
    in nothing that its start has not seen.
    """
    refuse_unknown(recipe)
    found: dict[str, None] = {}
    for name in recipe.distill.spread_over:
        found |= dict.fromkeys(_auto(recipe) if name == "auto" else (name,))
    return tuple(found)


def refuse_unknown(recipe: Recipe) -> None:
    """UserError for a network in ``distill.spread_over`` that timm does not have, or has no weights of that tag of."""
    words = (OWN, WORDS, "auto")
    for name in recipe.distill.spread_over:
        if name in words:
            continue
        try:
            starting.refuse_unknown(name, "network", words)
        except UserError as error:
            raise UserError(f"distill.spread_over: {error}") from None


def _auto(recipe: Recipe) -> tuple[str, ...]:
    given = starting.resolve(recipe.backbone).weights in _GIVEN
    others = [name for name in packages.PACKAGES if name != recipe.backbone.name and packages.installed(name)]
    return (OWN, *others, WORDS) if given else (OWN, WORDS)


def features(run: Run, recipe: Recipe, images: Images, spec: InputSpec) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Frozen features (N, D) of ``images``, of unit length for each network, and details for the result.

    spec: of the run.  Every network sees the pixels of its weights, all of them ``distill.teacher_size`` where that is
    set.  Two networks that err on different photos correct each other: benchmarks/results/few-labels.md.
    """
    parts: list[NDArray[np.float32]] = []
    seen: dict[str, int] = {}
    for name in networks(recipe):
        if name == WORDS:
            continue
        if name == OWN:
            # Pretraining has made the weights those of the run's own pixels.
            weights = None if recipe.ssl.epochs else starting.preprocessing_of(recipe.backbone)
            backbone, seen_as = backbones.load(run.root / BACKBONE), resized(spec, pixels(recipe, spec, weights))
        else:
            settings = starting.resolve(config.Backbone(name=name, weights="auto"))
            if settings.weights == "random":
                raise UserError(f"distill.spread_over = '{name}': there are no weights of it here; leave it out")
            backbone, seen_as = frozen(recipe, settings, spec)
        parts.append(unit(extract(backbone, images, seen_as)))
        seen[recipe.backbone.name if name == OWN else name] = seen_as.size
    return np.concatenate(parts, axis=1), {"pixels": seen}


def words(images: Images, side: int, seed: int = 0) -> NDArray[np.float32]:
    """Descriptions (N, W) of ``images`` by visual words that are found among them, of unit length.

    side: pixels that they are described at.
    """
    seen_as = InputSpec(side, side, (0.5,) * 3, (0.25,) * 3)
    vocabulary = Vocabulary(side=side, whitening=_WHITENING, **_VOCABULARY)
    some = np.linspace(0, len(images) - 1, min(len(images), _FITTED_ON)).round().astype(np.int64)
    pixels = torch.from_numpy(extract(ShrunkPixels(vocabulary), images.subset(some), seen_as, device="cpu"))
    vocabulary.fit(pixels.view(len(some), 3, side, side), seed)
    place = distributed.device()
    return extract(vocabulary.to(place), images, seen_as, device=str(place))


def described_at(run: Run, spec: InputSpec) -> int:
    """Pixels for ``words``: no more than the images of the run have, or those of ``spec`` where it does not say."""
    data = run.result("data")
    return min(SIDE, spec.size if data is None else data.details.get("longer_side", spec.size))


def frozen(recipe: Recipe, settings: config.Backbone, spec: InputSpec) -> tuple[Backbone, InputSpec]:
    """A network that only gives features, any of timm's, and its images: the pixels and normalisation of its weights.

    spec: of the run.
    """
    given = starting.preprocessing_of(settings)
    size = pixels(recipe, spec, given)
    return backbones.build(settings, seed=recipe.seed, pixels=size), resized(spec, size, given)


def pixels(recipe: Recipe, spec: InputSpec, given: Preprocessing | None) -> int:
    """What a teacher sees: the pixels of the weights it starts from, where there are any, else those of ``spec``."""
    return recipe.distill.teacher_size or (given.size if given is not None else spec.size)


def resized(spec: InputSpec, size: int, given: Preprocessing | None = None) -> InputSpec:
    """``spec`` for other pixels, the same part of the picture, with the normalisation of ``given`` weights."""
    mean, std, interpolation = (given or spec).mean, (given or spec).std, (given or spec).interpolation
    return InputSpec(size, round(spec.resize * size / spec.size), mean, std, interpolation)
