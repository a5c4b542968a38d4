"""The training loop on labelled images: fine-tuning and distillation differ in their targets only.

Warm-up and cosine, layer-wise rates (Clark et al. 2020, arXiv 2003.10555; BEiT, arXiv 2106.08254), mixup (Zhang et al.
2018, arXiv 1710.09412), an average of the weights, a limit in minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softedge.backbones import Classifier, normalise
from softedge.eval import frozen_norms
from softedge.memory import keep_freed
from softedge.progress import track
from softedge.ssl import cpu_layers, precision

Batches = Iterable[tuple[Tensor, Tensor]]  # uint8 (B, S, S, 3) and the targets: int64 (B,) or probabilities (B, K)


@dataclass(frozen=True)
class Schedule:
    """steps: updates.  warmup: fraction of them.  seconds: of wall clock at most, the rate falls to 0 by then too."""

    steps: int
    warmup: float = 0.1
    seconds: float = math.inf

    def progress(self, step: int, elapsed: float) -> float:
        """0 to 1: how much is done, by steps or by time, whichever is further."""
        return max(step / self.steps, elapsed / self.seconds)


@dataclass(frozen=True)
class Regularisation:
    """label_smoothing: mass given to all classes.  mixup: α of the Beta distribution, 0: none.  ema: decay, 0: none.

    frozen_statistics: BatchNorm keeps the statistics of the start (see ``frozen_norms``).
    """

    label_smoothing: float = 0.1
    mixup: float = 0.0
    ema: float = 0.99
    frozen_statistics: bool = False


def train(
    classifier: Classifier,
    batches: Batches,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    how: Regularisation,
    *,
    seed: int,
    asked_precision: str = "auto",
    show: str = "",
) -> list[float]:
    """Train ``classifier`` in place with AdamW; it ends as the average of its weights, on the CPU, in eval mode.

    batches: at least ``schedule.steps`` of them.  groups: from ``layer_groups``.  show: a name for the progress line.
    Returns the loss of every step.
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    dtype = precision.resolve(asked_precision, place)
    if place.type == "cpu":  # the same measures as in pretraining, see there
        keep_freed()
    try:
        if how.frozen_statistics:
            with frozen_norms.folded(classifier.backbone.net):
                losses = _loop(classifier, batches, groups, schedule, how, place, dtype, seed, show)
        else:
            if place.type == "cpu":
                cpu_layers.put_on(classifier, dtype)
            losses = _loop(classifier, batches, groups, schedule, how, place, dtype, seed, show)
    finally:
        cpu_layers.take_off(classifier)
    # Plain memory again: traced in channels_last, the graph gets other operators than that of the reloaded file.
    classifier.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return losses


def _loop(
    classifier: Classifier,
    batches: Batches,
    groups: list[dict[str, Any]],
    schedule: Schedule,
    how: Regularisation,
    place: torch.device,
    dtype: torch.dtype,
    seed: int,
    show: str,
) -> list[float]:
    optimizer = torch.optim.AdamW(groups)
    average = Average(classifier, how.ema)
    rng = np.random.default_rng([seed, 1])
    losses: list[float] = []
    started = time.monotonic()
    stream: Iterator[Any] = zip(range(schedule.steps), batches)
    for step, (images, targets) in track(stream, show, total=schedule.steps) if show else stream:
        done = schedule.progress(step, time.monotonic() - started)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_at(done, schedule.warmup, 1 / schedule.steps)
        planes, wanted = normalise(images.to(place), classifier.spec), targets.to(place)
        with precision.autocast(dtype, place):
            loss = mixed_loss(classifier, planes, wanted, how, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(classifier)
        losses.append(loss.item())
    average.copy_to(classifier)
    return losses


def mixed_loss(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    how: Regularisation,
    rng: np.random.Generator,
) -> Tensor:
    """Cross-entropy with label smoothing, of mixed pairs when mixup is on."""
    smoothing = how.label_smoothing
    if how.mixup <= 0:
        return functional.cross_entropy(classifier(images), targets, label_smoothing=smoothing)
    share = float(rng.beta(how.mixup, how.mixup))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    logits = classifier(images.mul(share).add_(images[order], alpha=1 - share))
    first = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    second = functional.cross_entropy(logits, targets[order], label_smoothing=smoothing)
    return share * first + (1 - share) * second


def rate(step: int, steps: int, warmup: float) -> float:
    """Linear from 0 over the first ``warmup`` of the steps, then a cosine to 0; in units of the full rate."""
    return rate_at(step / steps, warmup, 1 / steps)


def rate_at(done: float, warmup: float, one: float) -> float:
    """``rate`` by the fraction that is done; one: the fraction that a step is."""
    if done < warmup:
        return (done + one) / (warmup + one)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(one, 1.0 - warmup)))


def layer_groups(
    classifier: Classifier, lr: float, decay: float, weight_decay: float, backbone_lr: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups with rate ``lr`` for the head and ``backbone_lr · decay^depth`` below, depth 1 next to the head.

    backbone_lr: ``lr`` by default.  The layers are timm's own grouping of the network. Vectors (biases, norms) get no
    weight decay; parameters without gradient are left out.
    """
    from timm.models import group_parameters  # type: ignore[attr-defined]

    net: Any = classifier.backbone.net
    layers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # name -> index, from the stem
    # The classifier that timm counts as a last layer is gone: number what is left without gaps.
    present = {layers[name] for name, _ in net.named_parameters()}
    index = {layer: position for position, layer in enumerate(sorted(present))}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in classifier.named_parameters():
        if not parameter.requires_grad:
            continue
        inner = name.removeprefix("backbone.net.")
        depth = len(index) - index[layers[inner]] if inner in layers else 0
        key = (depth, parameter.ndim > 1)
        base = lr if depth == 0 or backbone_lr is None else backbone_lr
        base *= decay**depth
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
