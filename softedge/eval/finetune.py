"""Fine-tuning: train the whole network on the labels, from the SSL backbone, given weights or scratch.

Layer-wise rates (Clark et al. 2020, arXiv 2003.10555; BEiT, arXiv 2106.08254), warm-up and cosine, label smoothing,
optional mixup (Zhang et al. 2018, arXiv 1710.09412) and an average of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from softedge.memory import keep_freed
from softedge.progress import track
from softedge.run import Run
from softedge.ssl import cpu_layers, precision


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
    backbone: Backbone, data: Data, images: Images, recipe: Recipe, *, seed: int, show: bool = False
) -> tuple[Classifier, list[float]]:
    """Train ``backbone`` (in place) and a fresh linear layer on labelled ``images``; the averaged classifier in eval
    mode, and the loss of every step.

    Settings come from ``recipe.finetune`` and the flip from ``recipe.augment``: digits must not be mirrored.
    """
    settings = recipe.finetune
    torch.manual_seed(seed)
    classifier = Classifier(backbone, data.classes, data.spec)
    nn.init.normal_(classifier.head.weight, std=0.01)
    nn.init.zeros_(classifier.head.bias)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = classifier.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    dtype = precision.resolve(settings.precision, place)
    if place.type == "cpu":  # the same measures as in pretraining, see there
        keep_freed()
        cpu_layers.put_on(classifier, dtype)
    crops = Crops(
        images,
        data.spec,
        settings.batch,
        seed,
        min_area=settings.min_area,
        flip=recipe.augment.flip,
        workers=max(0, recipe.data.workers),
    )
    steps = max(settings.min_steps, settings.epochs * crops.steps_per_epoch)
    steps = min(steps, settings.max_steps or steps)
    scratch = settings.init == "random"
    groups = layer_groups(classifier, settings.lr, 1.0 if scratch else settings.layer_decay, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    average = Average(classifier, settings.ema)
    rng = np.random.default_rng([seed, 1])
    losses = []
    stream = zip(range(steps), crops.forever())
    shown: Iterator[Any] = track(stream, "finetune", total=steps) if show else stream
    for step, (batch, labels) in shown:
        scale = rate(step, steps, settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        planes = normalise(batch.to(place), data.spec)
        with precision.autocast(dtype, place):
            loss = _loss(classifier, planes, labels.to(place), settings, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(classifier)
        losses.append(loss.item())
    average.copy_to(classifier)
    cpu_layers.take_off(classifier)
    # Plain memory again: traced in channels_last, the graph gets other operators than that of the reloaded file.
    return classifier.to("cpu", memory_format=torch.contiguous_format).eval(), losses  # type: ignore[call-overload]


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


def rate(step: int, steps: int, warmup: float) -> float:
    """Linear from 0 over the first ``warmup`` of the steps, then a cosine to 0; in units of the full rate."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def layer_groups(classifier: Classifier, lr: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with rate ``lr · decay^depth``, depth 0 for the head, one more for every block below it.

    The blocks are timm's own grouping of the network. Vectors (biases, norms) get no weight decay.
    """
    from timm.models import group_parameters  # type: ignore[attr-defined]

    net: Any = classifier.backbone.net
    if hasattr(net, "group_matcher"):
        layers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # name -> index, from the stem
    else:  # a network of a plug-in that names no blocks is one
        layers = dict.fromkeys((name for name, _ in net.named_parameters()), 0)
    # The classifier that timm counts as a last layer is gone: number what is left without gaps.
    present = {layers[name] for name, _ in net.named_parameters()}
    index = {layer: position for position, layer in enumerate(sorted(present))}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in classifier.named_parameters():
        inner = name.removeprefix("backbone.net.")
        depth = len(index) - index[layers[inner]] if inner in layers else 0
        key = (depth, parameter.ndim > 1)
        base = lr * decay**depth
        group = {"params": [], "lr": base, "base_lr": base, "weight_decay": weight_decay if key[1] else 0.0}
        groups.setdefault(key, group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


class Average:
    """θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t) / (10 + t)), BatchNorm's statistics included."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.state = [t.detach().clone() for t in model.state_dict().values()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for kept, new in zip(self.state, model.state_dict().values()):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:  # counters
                kept.copy_(new)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for kept, tensor in zip(self.state, model.state_dict().values()):
            tensor.copy_(kept)


def thinned(values: list[float], count: int = 200) -> list[list[float]]:
    """At most ``count`` points [step, mean of the steps since the last point], for the report's curves."""
    parts = np.array_split(np.arange(len(values)), min(count, len(values)))
    return [[int(part[-1]), float(np.mean([values[i] for i in part]))] for part in parts]
