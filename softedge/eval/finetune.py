"""Fine-tuning: train the whole network on the labels, from the SSL backbone, starting weights or scratch.

Layer-wise rates (Clark et al. 2020, arXiv 2003.10555; BEiT, arXiv 2106.08254), warm-up and cosine, label smoothing,
optional mixup (Zhang et al. 2018, arXiv 1710.09412) and an average of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softedge import backbones, config
from softedge.backbones import Backbone, Classifier, normalise
from softedge.config import Recipe
from softedge.data.images import Data, Images
from softedge.eval.crops import Crops
from softedge.eval.features import extract, save
from softedge.eval.knn import top1, topk
from softedge.eval.optimising import optimise
from softedge.records import InputSpec
from softedge.run import Run


def initial(run: Run, recipe: Recipe, init: str, seed: int) -> Backbone:
    """The run's network with "ssl", "random" or "imagenet" weights, or those of a file."""
    if init == "ssl":
        return backbones.load(run.folder("pretrain") / "backbone.safetensors")
    pretrained = run.folder("pretrain") / "backbone.safetensors"
    settings = recipe.backbone
    if pretrained.is_file():  # the network that was pretrained, whatever a recipe says now
        settings = config.Backbone(**backbones.describe(pretrained)["backbone"])
    return backbones.build(settings.model_copy(update={"weights": init}), seed=seed)


def train(
    backbone: Backbone,
    data: Data,
    images: Images,
    recipe: Recipe,
    *,
    seed: int,
    shown: str = "",
    checkpoint: Path | None = None,
) -> tuple[Classifier, list[float]]:
    """Train ``backbone`` (in place) and a fresh linear layer on labelled ``images``; the averaged classifier in eval
    mode, and the loss of every step.

    Settings come from ``recipe.finetune`` and the flip from ``recipe.augment``: digits must not be mirrored.
    shown: the words before the progress; "" for none.  checkpoint: resume from it where it exists, see ``optimise``.
    """
    settings = recipe.finetune
    classifier = fresh(backbone, data.classes, data.spec, seed)
    crops = Crops(
        images,
        data.spec,
        settings.batch,
        seed,
        min_area=settings.min_area,
        flip=recipe.augment.flip,
        workers=max(0, recipe.data.workers),
    )
    decay = 1.0 if settings.init == "random" else settings.layer_decay
    rng = np.random.default_rng([seed, 1])

    def loss(classifier: Classifier, batch: Tensor, labels: Tensor) -> Tensor:
        return _loss(classifier, normalise(batch, data.spec), labels, settings, rng)

    losses = optimise(
        classifier,
        crops,
        loss,
        settings,
        rng,
        layer_decay=decay,
        shown=shown,
        checkpoint=checkpoint,
        cores=recipe.plan.threads,
    )
    return classifier, losses


def fresh(backbone: Backbone, classes: tuple[str, ...], spec: InputSpec, seed: int) -> Classifier:
    """``backbone`` with a new linear layer of small random weights; PyTorch's generator starts from ``seed``."""
    torch.manual_seed(seed)
    classifier = Classifier(backbone, classes, spec)
    nn.init.normal_(classifier.head.weight, std=0.01)
    nn.init.zeros_(classifier.head.bias)
    return classifier


def _loss(
    classifier: Classifier, images: Tensor, labels: Tensor, settings: config.Finetune, rng: np.random.Generator
) -> Tensor:
    """Cross-entropy with label smoothing, of mixed pairs when mixup is on."""
    smoothing = settings.label_smoothing
    if settings.mixup <= 0:
        return functional.cross_entropy(classifier(images), labels, label_smoothing=smoothing)
    share = float(rng.beta(settings.mixup, settings.mixup))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    logits = classifier(images.mul(share).add_(images[order], alpha=1 - share))
    first = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    second = functional.cross_entropy(logits, labels[order], label_smoothing=smoothing)
    return share * first + (1 - share) * second


def thinned(values: list[float], count: int = 200) -> list[list[float]]:
    """At most ``count`` points [step, mean of the steps since the last point], for the report's curves."""
    parts = np.array_split(np.arange(len(values)), min(count, len(values)))
    return [[int(part[-1]), float(np.mean([values[i] for i in part]))] for part in parts]


def measured(folder: Path, classifier: Classifier, data: Data, losses: list[float]) -> dict[str, Any]:
    """What every training of a classifier is measured by on the test images: top1, top5 (more than 5 classes), n_test,
    steps, loss (mean of the last tenth).  Its features and logits are left in ``folder``.
    """
    features = extract(classifier.backbone, data.test, classifier.spec)
    with torch.inference_mode():
        logits = classifier.head(torch.from_numpy(features)).numpy()
    save(folder, features, data.test, logits)
    metrics: dict[str, Any] = {"top1": top1(logits, data.test.labels)}
    if len(data.classes) > 5:
        metrics["top5"] = topk(logits, data.test.labels, 5)
    last = losses[-max(1, len(losses) // 10) :]
    return {**metrics, "n_test": len(data.test), "steps": len(losses), "loss": float(np.mean(last))}
