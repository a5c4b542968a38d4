"""Who teaches in ``softedge distill``, with which images, and how good the teacher is without a look at test images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softedge import backbones, config
from softedge.backbones import Backbone, Classifier
from softedge.config import Recipe
from softedge.data.images import UNLABELLED, Data, Images
from softedge.errors import UserError
from softedge.eval import few_labels, linear, validation
from softedge.eval.bootstrap import paired
from softedge.eval.distillation import Answers, Teacher, ViewClassifier
from softedge.eval.features import extract, softmax
from softedge.eval.knn import top1
from softedge.eval.spreading import LEAST, WORDS, spread_over
from softedge.files import expanded
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages import classifier, spreading
from softedge.stages.base import BACKBONE
from softedge.stages.spreading import resized
from softedge.weights import starting

SPREADING = ("spread", "ensemble")  # teachers that look at the features of ``distill.spread_over``
UNSEEN = 0.1  # of the unlabelled images, never trained on: does the student answer as its teacher does?
AT_MOST = 300


@dataclass(frozen=True)
class Parts:
    """The training images of a run by what they are for, as rows of ``data.pretrain``.

    used: the student trains on them.  validation: labelled, held out (none where labels are few).  unseen: without a
    label, held out.  labels: (N,) of all, ``UNLABELLED`` where there is none or none may be used.
    """

    data: Data
    used: NDArray[np.int64]
    validation: NDArray[np.int64]
    unseen: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def images(self) -> Images:
        """What the student trains on."""
        return labelled(self.data.pretrain.subset(self.used), self.labels[self.used])

    @property
    def n_labelled(self) -> int:
        return int((self.labels >= 0).sum())


@dataclass(frozen=True)
class Taught:
    """A teacher for the rows ``used`` of ``Parts``.

    top1: on validation images, or cross-validated over the labelled ones where these are few; None where unknown.
    probabilities: (N, C) for all training images, of a teacher that has answered for each.  features: those it looked
    at.
    """

    teacher: Teacher
    top1: float | None
    features: NDArray[np.float32] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    probabilities: NDArray[np.floating] | None = None

    @property
    def answers(self) -> NDArray[np.int64] | None:
        """(N,), the likeliest class of every training image."""
        return None if self.probabilities is None else self.probabilities.argmax(1)


def labelled(images: Images, labels: NDArray[np.int64]) -> Images:
    """The same images with other labels."""
    same = images.subset(np.arange(len(images)))
    same.labels = labels
    return same


def parts(data: Data, seed: int) -> Parts:
    """Divide the training images; the validation part is that of every training of the run."""
    every = data.pretrain.every  # divided as if none had been set aside since
    rows = np.flatnonzero(every.labels >= 0)
    labels = every.labels.copy()
    held = validation.held_out(every.subset(rows), seed)
    without = np.flatnonzero(labels < 0)
    unseen = np.random.default_rng([seed, 3]).permutation(without)[: min(AT_MOST, round(UNSEEN * len(without)))]
    out = rows[held]
    labels[out] = UNLABELLED
    used = np.setdiff1d(np.arange(len(labels)), np.concatenate([out, unseen]))
    left, rows = data.pretrain.left, data.pretrain.rows_of(np.arange(len(data.pretrain)))
    return Parts(data, left(used), left(out), left(np.sort(unseen)), labels[rows])


def resolve(run: Run, recipe: Recipe, data: Data) -> str:
    """The teacher in plain words: what "auto" and "best" are for this run."""
    asked = recipe.distill.teacher
    if asked == "auto":
        asked = "ensemble" if mostly_unlabelled(data) else "best"
    if asked not in ("best", "ensemble"):
        return asked
    done = {name: result for name, result in classifier.trained(run).items() if name in ("probe", "finetune")}
    classifier.refuse_interrupted(run, "--teacher", done, ("probe", "finetune"))
    if asked == "ensemble":
        return asked
    if not done:
        run.need("probe", "probe")
    return classifier.best_of(done)


def refuse_unknown(name: str) -> None:
    """UserError for a teacher that is no word of ``distill.teacher``, no path and no timm network."""
    if name in (*classifier.SOURCES, *SPREADING) or expanded(name).exists():
        return
    words = ["auto", "best", "probe", "finetune", *SPREADING]
    others = f"give {', '.join(words)}, a run, a classifier file or a timm network"
    starting.refuse_unknown(name, "teacher", words, others)


def refuse_unknown_names(recipe: Recipe) -> None:
    """UserError for networks of ``[distill]`` that timm does not have, before what comes first is trained for hours."""
    settings = recipe.distill
    spreading.refuse_unknown(recipe)
    if settings.teacher not in ("auto", "best") and "/" not in settings.teacher:  # a run may be made meanwhile
        refuse_unknown(settings.teacher)
    if settings.backbone:
        starting.refuse_unknown(settings.backbone)


def few_and_many(data: Data) -> bool:
    """Few images with a label, and at least as many without one."""
    return mostly_unlabelled(data) and validation.few(data.train.every.labels)


def mostly_unlabelled(data: Data) -> bool:
    """At least half of the training images have no label."""
    return len(data.pretrain.every) >= 2 * len(data.train.every) > 0


def files(run: Run, recipe: Recipe) -> list[str | Path]:
    """What a resolved teacher, and a network that starts from a file, are read from."""
    settings = recipe.distill
    started = [Path(settings.weights)] if settings.backbone and Path(settings.weights).is_file() else []
    return [*_read_from(run, recipe), *started]


def _read_from(run: Run, recipe: Recipe) -> list[str | Path]:
    name = recipe.distill.teacher
    if name in classifier.SOURCES:
        return [f"{name}/classifier.safetensors"]
    if name == "ensemble":
        return [] if run.result("finetune") is None else ["finetune/classifier.safetensors"]
    if name == "spread":
        return []
    if (path := expanded(name)).is_dir():
        other = Run(path)
        return [other.folder(classifier.source(other, _export_best(recipe))) / "classifier.safetensors"]
    if path.is_file():
        return [path]
    weights = Path(recipe.distill.teacher_weights)
    return [weights] if weights.is_file() else []


def make(run: Run, recipe: Recipe, parts: Parts) -> Taught:
    """The teacher that a resolved ``distill.teacher`` names; UserError where it knows other classes."""
    name = recipe.distill.teacher
    if name == "spread":
        return _spreading(run, recipe, parts)
    if name == "ensemble":
        return _ensemble(run, recipe, parts)
    if name in classifier.SOURCES or expanded(name).exists():
        model = _loaded(run, _read_from(run, recipe)[0], parts)
    else:
        model = _on_features(recipe, parts)
    return Taught(ViewClassifier(model), _validated(model, parts))


def _loaded(run: Run, file: str | Path, parts: Parts) -> Classifier:
    path = file if isinstance(file, Path) else run.root / file
    model = backbones.load_classifier(path)
    if model.labels != parts.data.classes:
        raise UserError(
            f"the teacher {path} knows the classes {', '.join(model.labels)}; this run has "
            f"{', '.join(parts.data.classes)}"
        )
    return model


def _export_best(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"export": recipe.export.model_copy(update={"source": "best"})})


def _validated(model: Classifier, parts: Parts) -> float | None:
    if not len(parts.validation):
        return None
    images = parts.data.pretrain.subset(parts.validation)
    return top1(extract(model, images, model.spec), images.labels)


def _spreading(run: Run, recipe: Recipe, parts: Parts) -> Taught:
    """Labels that spread over features: class probabilities for all training images, the labelled ones certain."""
    ground = spreading.ground(run, recipe, parts.data.pretrain, parts.labels, parts.data.spec)
    found = spread_over(ground.features, parts.labels, len(parts.data.classes), ground.folds, ground.words)
    details = ground.details | _graphs(found.weights)
    return _answered(parts, found.probabilities, ground.features, found.top1, details)


def _graphs(weights: tuple[float, ...]) -> dict[str, Any]:
    """Details: what visual words weighed beside the features, and the graph with it in the answers."""
    return {"words": dict(zip(map(str, WORDS), weights))} if len(weights) > 1 else {}


def _answered(
    parts: Parts,
    probabilities: NDArray[np.floating],
    features: NDArray[np.float32],
    cross_validated: float | None,
    details: dict[str, Any],
) -> Taught:
    """A teacher of these ``probabilities`` (N, C); of images with a label that may be used, the label is the answer."""
    rows = np.flatnonzero(parts.labels >= 0)
    probabilities[rows] = np.eye(len(parts.data.classes))[parts.labels[rows]]
    top = cross_validated
    if len(parts.validation):
        top = float((probabilities[parts.validation].argmax(1) == parts.data.pretrain.labels[parts.validation]).mean())
    without = parts.labels < 0
    if without.any():
        details = details | {"confidence": float(probabilities[without].max(1).mean())}
    return Taught(Answers(probabilities[parts.used]), top, features, details, probabilities)


def _ensemble(run: Run, recipe: Recipe, parts: Parts) -> Taught:
    """Spread labels, a linear layer on the same features and the fine-tuned network, if there is one: all that are not
    clearly below the best of them on validation images (95 % interval).

    With few images to validate on the best one is a matter of chance; the mean of their log probabilities is better
    than any of them (benchmarks/results/cifar10.md). A fine-tuned network that is clearly better than the others
    teaches alone, and answers for every view.  Labels that are too few to validate on are: ``_few``.
    """
    if not len(parts.validation):
        return _few(run, recipe, parts)
    images, classes = parts.data.pretrain, len(parts.data.classes)
    taught = _spreading(run, recipe, parts)
    assert taught.features is not None and taught.probabilities is not None
    rows = np.flatnonzero(parts.labels >= 0)
    layer = linear.fit(taught.features[rows], parts.labels[rows], classes, recipe.probe.weight_decays, recipe.seed)
    members: dict[str, NDArray[np.floating]] = {
        "spread": taught.probabilities,
        "linear": softmax(layer(taught.features)),
    }
    tuned = [_loaded(run, file, parts) for file in _read_from(run, recipe)]
    for model in tuned:
        members["finetune"] = softmax(extract(model, images, model.spec))
    truth = images.labels[parts.validation]
    right = {name: answers[parts.validation].argmax(1) == truth for name, answers in members.items()}
    scores = {name: float(found.mean()) for name, found in right.items()}
    best = max(reversed(list(members)), key=lambda name: scores[name])
    kept = [name for name in members if name == best or paired(right[best], right[name], recipe.seed).low <= 0]
    details = taught.details | {"members": scores, "taught_by": kept}
    if kept == ["finetune"]:
        return Taught(ViewClassifier(tuned[0]), scores["finetune"], details=details)
    logs = np.mean([np.log(np.maximum(members[name], LEAST)) for name in kept], axis=0)
    return _answered(parts, softmax(logs), taught.features, None, details)


def _few(run: Run, recipe: Recipe, parts: Parts) -> Taught:
    """Spread labels and a linear layer on the same features, weighed by cross-validation over the labels.

    A fine-tuned network has no part: it has answered for its own labels only.
    """
    ground = spreading.ground(run, recipe, parts.data.pretrain, parts.labels, parts.data.spec)
    decays, classes = recipe.probe.weight_decays, len(parts.data.classes)
    found = few_labels.answer(ground.features, parts.labels, classes, ground.folds, decays, recipe.seed, ground.words)
    weights = {"spread": found.weight, "linear": 1 - found.weight}
    details: dict[str, Any] = ground.details | _graphs(found.graphs)
    details["taught_by"] = [name for name, weight in weights.items() if weight]
    details |= {"weights": weights, "members": {"spread": found.spread_top1, "linear": found.linear_top1}}
    return _answered(parts, found.probabilities, ground.features, found.top1, details)


def _on_features(recipe: Recipe, parts: Parts) -> Classifier:
    """A linear layer on the frozen features of a timm network, from the labelled images."""
    asked = config.Backbone(name=recipe.distill.teacher, weights=recipe.distill.teacher_weights)
    backbone, spec = spreading.frozen(recipe, starting.resolve(asked), parts.data.spec)
    rows = np.flatnonzero(parts.labels >= 0)
    features = extract(backbone, parts.data.pretrain.subset(rows), spec)
    decays, classes = recipe.probe.weight_decays, parts.data.classes
    layer = linear.fit(features, parts.labels[rows], len(classes), decays, recipe.seed)
    model = Classifier(backbone, classes, spec)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(layer.weight))
        model.head.bias.copy_(torch.from_numpy(layer.bias))
    return model


def student(run: Run, recipe: Recipe, data: Data) -> tuple[Backbone, InputSpec]:
    """The network that learns, before it has learnt, and what its images are like."""
    settings = recipe.distill
    size = settings.size or data.spec.size
    if not settings.backbone:
        return backbones.load(run.root / BACKBONE), resized(data.spec, size)
    asked = config.Backbone(name=settings.backbone, weights=settings.weights, stem_stride=recipe.backbone.stem_stride)
    chosen = starting.resolve(asked)
    return backbones.build(chosen, seed=recipe.seed), resized(data.spec, size, starting.preprocessing_of(chosen))
