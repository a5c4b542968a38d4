"""Short quantization-aware fine-tuning without labels: the int8 network learns to answer like its fp32 original."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.export.candidates import Rounding
from softedge.export.deployed import Deployed
from softedge.progress import track
from softedge.quantize.simulation import Ranges, simulate
from softedge.records import Output

_TIMED = 3  # steps after which it is known how long one takes
_FEWEST = 60  # steps below which there is nothing to expect (assumption, not measured)


@dataclass(frozen=True)
class Schedule:
    """Adam with a cosine to zero.

    A weight moves by ``lr`` of its tensor's root mean square a step, the end of a range by ``range_lr`` of its width:
    folded weights differ a hundredfold between layers, and Adam's steps are absolute.  The gradients are mostly noise
    of the rounding: with ``lr`` 1e-3 a MobileNetV3-Small lost 2 dB in 200 steps.

    minutes: no more steps than fit into them on this machine.
    """

    steps: int = 400
    minutes: float = math.inf
    batch: int = 64
    lr: float = 1e-4
    range_lr: float = 2e-4
    shift: float = 0.1  # random shifts up to this part of the image, and flips
    seed: int = 0


def fine_tune(
    deployed: Deployed,
    roundings: Sequence[Rounding],
    image: Uint8,
    images: Uint8,
    schedule: Schedule = Schedule(),
) -> tuple[Deployed, Ranges, int]:
    """Distil fp32 into the arithmetic of a quantized file on unlabelled images.

        L = KL(softmax f(x) || softmax g(x)) + ||f(x) - g(x)||^2 / ||f(x)||^2,   f: fp32, g: int8

    deployed: the fp32 network.  roundings: the activations that the file rounds, on ``image`` (1, S, S, 3).
    images: uint8 (N, S, S, 3).
    Returns a network with tuned weights (float, BatchNorm folded), the learned ranges by rounding, and the number of
    steps.  Raises UserError when ``schedule.minutes`` hold too few of them.
    """
    teacher = deployed.folded().model.eval()
    student = simulate(deployed, roundings, image)
    student.train(False)  # there is no BatchNorm left to train, and no dropout wanted
    rounding = student.rounding().values()
    widths = [float((r.high - r.low).detach()) for r in rounding]
    ends = {id(p) for r in rounding for p in r.parameters()}
    weights = [p for p in student.parameters() if id(p) not in ends]
    groups: list[dict[str, Any]] = [
        {"params": [w], "lr": schedule.lr * max(float(w.detach().square().mean().sqrt()), 1e-3)} for w in weights
    ]
    groups += [{"params": list(r.parameters()), "lr": schedule.range_lr * w} for r, w in zip(rounding, widths)]
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(groups)
    steps, start = schedule.steps, time.monotonic()
    cosine = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for number, planes in enumerate(track(_batches(deployed, images, schedule), "fine-tuning int8", schedule.steps)):
        if number == _TIMED:
            steps = _affordable((time.monotonic() - start) / _TIMED, schedule)
        if number == steps:
            break
        with torch.no_grad():
            target = teacher(planes)
        loss = distance(target, student(planes), deployed.output)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        cosine.step()
    tuned = Deployed(student.float_network().eval(), deployed.spec, deployed.labels, deployed.output)
    return tuned, student.ranges(), steps


def _affordable(seconds: float, schedule: Schedule) -> int:
    """How many steps of so many seconds the schedule allows."""
    steps = min(schedule.steps, int(60 * min(schedule.minutes, 1e6) / seconds))
    if steps < min(_FEWEST, schedule.steps):
        raise UserError(
            f"fine-tuning int8 takes {seconds:.1f} s a step here: {steps} steps in {schedule.minutes:g} minutes, at "
            f"least {_FEWEST} are needed; give more with --set quantize.tune_minutes={1 + _FEWEST * seconds / 60:.0f}"
        )
    return steps


def distance(target: Tensor, outputs: Tensor, output: Output) -> Tensor:
    """The distillation loss of ``fine_tune``; for features and the logits of scores only its second term."""
    relative = (outputs - target).square().sum(1) / target.square().sum(1).clamp_min(1e-12)
    if output != "probabilities":
        return relative.mean()
    divergence = functional.kl_div(
        outputs.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True
    )
    return divergence + relative.mean()


def _batches(deployed: Deployed, images: Uint8, schedule: Schedule) -> Iterator[Tensor]:
    """``steps`` batches of normalised planes, shifted and flipped at random, each image once per epoch."""
    rng = np.random.default_rng(schedule.seed)
    order = np.empty(0, np.int64)
    reach = int(schedule.shift * images.shape[1])
    for _ in range(schedule.steps):
        while len(order) < min(schedule.batch, len(images)):
            order = np.concatenate([order, rng.permutation(len(images))])
        chosen, order = images[order[: schedule.batch]], order[schedule.batch :]
        if rng.random() < 0.5:
            chosen = chosen[:, :, ::-1]
        down, right = rng.integers(-reach, reach + 1, 2)
        padded = np.pad(chosen, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
        size = images.shape[1]
        chosen = padded[:, reach + down : reach + down + size, reach + right : reach + right + size]
        planes = torch.from_numpy(np.ascontiguousarray(chosen)).permute(0, 3, 1, 2).float()
        yield ((planes - deployed.shift) / deployed.scale).contiguous(memory_format=torch.channels_last)
