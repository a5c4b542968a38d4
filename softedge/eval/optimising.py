"""The training loop of labelled batches: AdamW, warm-up and cosine, rates by layer, averaged weights, checkpoints.

Fine-tuning and distillation run through it; they differ in their losses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from softedge.backbones import Classifier
from softedge.errors import ADD_FORCE, UserError
from softedge.eval.crops import Crops
from softedge.eval.pace import large_layers
from softedge.machine import threads
from softedge.machine.memory import give_back, keep_freed
from softedge.progress import say, track
from softedge.ssl import cpu_layers, precision
from softedge.weights import checkpoints

STEPS_BETWEEN = 50  # steps at least between checkpoints: with few images an epoch is shorter than writing one

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]  # classifier, uint8 (B, S, S, 3), labels (B,) -> a number


class Settings(Protocol):
    """What the loop asks of a recipe's section."""

    epochs: int
    min_steps: int
    max_steps: int
    lr: float
    weight_decay: float
    warmup: float
    ema: float
    precision: Any


def optimise(
    classifier: Classifier,
    crops: Crops,
    loss: Loss,
    settings: Settings,
    rng: np.random.Generator,
    *,
    layer_decay: float = 1.0,
    shown: str = "",
    checkpoint: Path | None = None,
    cores: int = 0,
) -> list[float]:
    """Train ``classifier`` in place and leave the averaged weights in it, on the CPU in eval mode; the loss per step.

    rng: what the loss draws from; kept in the checkpoint.  shown: the word before the progress; "" for none.
    checkpoint: written after an epoch, at most every ``STEPS_BETWEEN`` steps, and at the end, for the caller to remove;
        training resumes from it in the same bits, with as many threads as it was begun with.
    cores: threads to compute with where the layers are large and no other process decodes; 0 leaves them as they are.
    """
    worth = cores and crops.in_memory and large_layers(classifier.backbone, classifier.spec.size, crops.batch)
    with threads.using(cores if worth else 0):
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        classifier.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        dtype = precision.resolve(settings.precision, place)
        if place.type == "cpu":  # the same measures as in pretraining, see there
            keep_freed()
            cpu_layers.put_on(classifier, dtype)
        steps = planned_steps(crops, settings)
        groups = layer_groups(classifier, settings.lr, layer_decay, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, fused=True)
        average = Average(classifier, settings.ema)
        losses: list[float] = []
        if checkpoint is not None:
            losses = _resume(checkpoint, classifier, optimizer, average, rng)
        kept = len(losses)
        stream = zip(range(len(losses), steps), crops.forever(len(losses)))
        progress: Iterator[Any] = track(stream, shown, steps, before=len(losses)) if shown else stream
        for step, (batch, labels) in progress:
            scale = rate(step, steps, settings.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * scale
            with precision.autocast(dtype, place):
                value = loss(classifier, batch.to(place), labels.to(place))
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            average.update(classifier)
            losses.append(value.item())
            ended = (step + 1) % crops.steps_per_epoch == 0
            if checkpoint is not None and ended and len(losses) - kept >= STEPS_BETWEEN:
                _keep(checkpoint, classifier, optimizer, average, rng, losses)
                kept = len(losses)
        if checkpoint is not None and len(losses) > kept:  # another training may follow before the stage is done
            _keep(checkpoint, classifier, optimizer, average, rng, losses)
        average.copy_to(classifier)
        cpu_layers.take_off(classifier)
        optimizer.zero_grad(set_to_none=True)
        # Plain memory again: traced in channels_last, the graph gets other operators than that of the reloaded file.
        classifier.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        give_back()
        return losses


def planned_steps(crops: Crops, settings: Settings) -> int:
    """Optimizer steps of a whole training."""
    steps = max(settings.min_steps, settings.epochs * crops.steps_per_epoch)
    return min(steps, settings.max_steps or steps)


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
    def load(self, state: list[Tensor], steps: int) -> None:
        self.steps = steps
        for kept, tensor in zip(self.state, state):
            kept.copy_(tensor)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for kept, tensor in zip(self.state, model.state_dict().values()):
            tensor.copy_(kept)


def _keep(
    path: Path,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    average: Average,
    rng: np.random.Generator,
    losses: list[float],
) -> None:
    content = {
        "classifier": classifier.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state,
        "losses": losses,
        "threads": torch.get_num_threads(),  # sums are split among them: another number would give other bits
        "random": {"torch": torch.get_rng_state(), "numpy": json.dumps(rng.bit_generator.state)},
    }
    checkpoints.write(path, content)


def _resume(
    path: Path,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    average: Average,
    rng: np.random.Generator,
) -> list[float]:
    """Restore everything from ``path``; the losses so far, none where there is no checkpoint."""
    if not path.is_file():
        return []
    try:
        content = checkpoints.read(path)
    except checkpoints.Damaged as error:
        raise UserError(f"{path} is damaged: {error}; {ADD_FORCE} to start over") from error
    classifier.load_state_dict(content["classifier"])
    optimizer.load_state_dict(content["optimizer"])
    average.load(content["average"], len(content["losses"]))
    torch.set_rng_state(content["random"]["torch"])
    rng.bit_generator.state = json.loads(content["random"]["numpy"])
    torch.set_num_threads(content.get("threads", torch.get_num_threads()))
    say(f"resumed after {len(content['losses'])} steps")
    return [float(value) for value in content["losses"]]
