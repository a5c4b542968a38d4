"""Probing: how good the frozen features are, beside the same network with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softedge import backbones
from softedge.config import Probe, Recipe
from softedge.data.images import Data
from softedge.eval import linear, validation
from softedge.eval.bootstrap import paired
from softedge.eval.features import extract, save
from softedge.eval.knn import knn_predict, topk
from softedge.progress import plural, say
from softedge.records import Outcome

_DRAWS = 5  # random choices of the few labels; the mean is reported, the spread stands in the details


def probe(folder: Path, recipe: Recipe, data: Data, weights: Path) -> Outcome:
    """Measure k-NN and linear accuracy on the test split and write ``classifier.safetensors`` into ``folder``.

    weights: the pretrained backbone.  Metrics: knn_top1, linear_top1, linear_top5 (more than 5 classes), val_top1 (of
    the linear layer on n_val validation images, trained without them), few_knn_top1, few_linear_top1
    (``probe.few_labels`` per class, mean of five draws), and the same with ``random_`` in front for random weights.
    details["gain_intervals"]: of each, the 95 % interval of what it gains over random weights (a paired bootstrap).
    """
    backbone = backbones.load(weights)
    train_images, test_images = data.train.prepared(data.spec), data.test.prepared(data.spec)
    keep, folds = validation.divided(data.train, recipe.probe.labels, recipe.seed)
    labelled, tested = plural(len(keep), "labelled training image"), plural(len(data.test), "test image")
    say(f"probe: {labelled}, {tested}, {len(data.classes)} classes")

    train, test = extract(backbone, train_images, data.spec), extract(backbone, test_images, data.spec)
    measured, best, logits = _measure(recipe, data, train, test, keep)
    metrics, details = dict(measured.metrics), dict(measured.details)
    if len(folds):
        metrics["val_top1"] = _validated(train[keep], data.train.labels[keep], folds, best.weight_decay, recipe)
        metrics["n_val"] = sum(int(held.sum()) for held in folds)

    classifier = backbones.Classifier(backbone, data.classes, data.spec).eval()
    with torch.no_grad():
        classifier.head.weight.copy_(torch.from_numpy(best.weight))
        classifier.head.bias.copy_(torch.from_numpy(best.bias))
    backbones.save(folder / "classifier.safetensors", classifier, data.spec)
    save(folder, test, data.test, logits)
    skipped = {}
    if recipe.probe.random_baseline:
        # As built, BatchNorm at its initial statistics: measured on digits this is a far stronger baseline (k-NN .83)
        # than the same weights with the images' own statistics (.51).
        untrained = backbones.build(backbone.settings, seed=recipe.seed)
        random_train, random_test = (extract(untrained, x, data.spec) for x in (train_images, test_images))
        random, _, _ = _measure(recipe, data, random_train, random_test, keep)
        metrics |= {f"random_{key}": value for key, value in random.metrics.items()}
        details |= {f"random_{key}": value for key, value in random.details.items()}
        gains = {key: paired(right, random.right[key]) for key, right in measured.right.items()}
        details["gain_intervals"] = {key: [gain.low, gain.high] for key, gain in gains.items()}
    else:
        skipped["random baseline"] = "probe.random_baseline is off"
    metrics |= {"n_train": len(keep), "n_test": len(data.test)}
    details["classes"] = list(data.classes)
    return Outcome(metrics, details, skipped)


@dataclass(frozen=True)
class _Measured:
    """right: by accuracy, whether each test image was answered correctly, (N,), or (draws, N) of few labels."""

    metrics: dict[str, float]
    details: dict[str, Any]
    right: dict[str, NDArray[np.bool_]]


def _measure(
    recipe: Recipe, data: Data, train: NDArray[np.float32], test: NDArray[np.float32], keep: NDArray[np.int64]
) -> tuple[_Measured, linear.Linear, NDArray[np.float32]]:
    """k-NN and linear accuracy of one set of features, with all kept labels and with a few per class; the classifier
    and its logits."""
    settings: Probe = recipe.probe
    labels, truth, classes = data.train.labels, data.test.labels, len(data.classes)

    def neighbours(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        votes = knn_predict(train[rows], labels[rows], test, classes, recipe.knn.k, recipe.knn.temperature)
        return np.asarray(votes.argmax(1) == truth)

    best = linear.fit(train[keep], labels[keep], classes, settings.weight_decays, recipe.seed)
    logits = best(test)
    right = {"knn_top1": neighbours(keep), "linear_top1": logits.argmax(1) == truth}
    details: dict[str, Any] = {"weight_decay": best.weight_decay, "validation_top1": best.validation_top1}
    if settings.few_labels and settings.few_labels < len(keep) / classes:
        knns, linears = [], []
        for draw in range(_DRAWS):
            rng = np.random.default_rng([recipe.seed, draw])
            few = keep[linear.pick_per_class(labels[keep], settings.few_labels, rng)]
            knns.append(neighbours(few))
            fitted = linear.fit(train[few], labels[few], classes, settings.weight_decays, recipe.seed)
            linears.append(fitted(test).argmax(1) == truth)
        right |= {"few_knn_top1": np.stack(knns), "few_linear_top1": np.stack(linears)}
        each = {"knn": right["few_knn_top1"].mean(1).tolist(), "linear": right["few_linear_top1"].mean(1).tolist()}
        details["few"] = {"labels_per_class": settings.few_labels, "draws": _DRAWS} | each
    metrics = {key: float(value.mean()) for key, value in right.items()}
    if classes > 5:
        metrics["linear_top5"] = topk(logits, truth, 5)
    return _Measured(metrics, details, right), best, logits


def _validated(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: list[NDArray[np.bool_]],
    decay: float,
    recipe: Recipe,
) -> float:
    right = 0
    for held in folds:
        fitted = linear.fit(features[~held], labels[~held], int(labels.max()) + 1, (decay,), recipe.seed)
        right += int((fitted(features[held]).argmax(1) == labels[held]).sum())
    return right / sum(int(held.sum()) for held in folds)
