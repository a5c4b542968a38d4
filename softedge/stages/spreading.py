"""The features over which ``softedge distill`` lets few labels spread: those of several networks, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softedge import backbones, config
from softedge.backbones import Backbone
from softedge.config import Recipe
from softedge.data.images import Images
from softedge.errors import UserError, did_you_mean
from softedge.eval.features import extract
from softedge.eval.measures import unit
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages.base import BACKBONE
from softedge.weights import packages, starting
from softedge.weights.preprocessing import Preprocessing

OWN = "run"  # the run's network, in distill.spread_over
_GIVEN = ("package", "imagenet")  # starting weights that have seen ImageNet's labels: others that have may join them


def networks(recipe: Recipe) -> tuple[str, ...]:
    """``distill.spread_over`` without "auto" and repetitions; UserError for a network that timm does not have.

    A run that starts from random weights, or from a file, spreads over its own features alone: "auto" brings in
    nothing that its start has not seen.
    """
    import timm

    found: dict[str, None] = {}
    for name in recipe.distill.spread_over:
        found |= dict.fromkeys(_auto(recipe) if name == "auto" else (name,))
    known = timm.list_models()
    for name in found:
        if name != OWN and name.partition(".")[0] not in known:
            raise UserError(
                f"unknown network in distill.spread_over: '{name}'{did_you_mean(name, [OWN, 'auto', *known])}"
            )
    return tuple(found)


def _auto(recipe: Recipe) -> tuple[str, ...]:
    given = starting.resolve(recipe.backbone).weights in _GIVEN
    others = [name for name in packages.PACKAGES if name != recipe.backbone.name and packages.installed(name)]
    return (OWN, *others) if given else (OWN,)


def features(
    run: Run, recipe: Recipe, images: Images, spec: InputSpec
) -> tuple[NDArray[np.float32], dict[str, object]]:
    """Frozen features (N, D) of ``images``, of unit length for each network, and details for the result.

    spec: of the run.  Every network sees the pixels of its weights, all of them ``distill.teacher_size`` where that is
    set.  Two networks that err on different photos correct each other: benchmarks/results/few-labels.md.
    """
    parts: list[NDArray[np.float32]] = []
    seen: dict[str, int] = {}
    for name in networks(recipe):
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
