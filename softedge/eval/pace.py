"""How long this machine takes for an image: a few steps of training, in processor time."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from softedge import config, threads
from softedge.backbones import Classifier, build, normalise
from softedge.memory import keep_freed
from softedge.records import InputSpec
from softedge.ssl import cpu_layers, precision

_STEPS = 3
_GRID = 1.25  # ratio of neighbouring values that are told: two measurements differ by some per cent
_BATCH = 32  # of the recipes
_LARGE = 1e6  # numbers that a convolution gives on average, from which every core computes; see benchmarks/threads.py
_LOADING = 1.15  # cropping and decoding beside the training step, assumption


def seconds_per_image(settings: config.Backbone, size: int, batch: int = 16) -> float:
    """Of one training step, forward and backward, at ``size`` pixels; rounded so that noise seldom shows.

    On a CPU in processor time shared by the threads: other work on the machine does not count.  On a GPU by the clock.
    """
    with threads.all_cores(worth_all_cores(build(settings.model_copy(update={"weights": "random"})), size, _BATCH)):
        return _seconds_per_image(settings, size, batch)


def _seconds_per_image(settings: config.Backbone, size: int, batch: int) -> float:
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = InputSpec(size, size, (0.5,) * 3, (0.5,) * 3)
    model = Classifier(build(settings.model_copy(update={"weights": "random"})), ("a", "b"), spec)
    model.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    dtype = precision.resolve("auto", place)
    if place.type == "cpu":
        keep_freed()
        cpu_layers.put_on(model, dtype)
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    labels = torch.zeros(batch, dtype=torch.long, device=place)

    def step() -> None:
        with precision.autocast(dtype, place):
            loss = torch.nn.functional.cross_entropy(model(normalise(images.to(place), spec)), labels)
        loss.backward()
        if place.type == "cuda":
            torch.cuda.synchronize()

    clock, share = (time.process_time, torch.get_num_threads()) if place.type == "cpu" else (time.perf_counter, 1)
    step()  # memory and kernels
    taken = []
    for _ in range(_STEPS):
        started = clock()
        step()
        taken.append(clock() - started)
    return on_grid(_LOADING * min(taken) / share / batch)


def gain_of_all_cores(settings: config.Backbone, size: int) -> float:
    """How many times as many threads train the network at ``size`` pixels as compute while a loader works beside."""
    network = build(settings.model_copy(update={"weights": "random"}))
    now = torch.get_num_threads()
    with threads.all_cores(worth_all_cores(network, size, _BATCH)):
        return torch.get_num_threads() / now


@torch.no_grad()
def worth_all_cores(network: nn.Module, size: int, batch: int) -> bool:
    """Whether the convolutions are large enough for a thread on every core: on average a million numbers of output.

    Threads wait for each other after every layer.  Where another process has a core, that takes milliseconds: nothing
    beside a large layer, five times the layer itself for a small one.  From shapes alone: never another choice on a
    busy day.  network: (N, 3, S, S) -> anything; left as it is.  size: pixels.  batch: images.
    """
    sizes: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: sizes.append(output.numel()))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    was_training = network.training
    try:
        network.eval()(next(network.parameters()).new_zeros(1, 3, size, size))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return bool(sizes) and batch * sum(sizes) / len(sizes) >= _LARGE


def on_grid(seconds: float) -> float:
    """The nearest power of the grid's ratio."""
    return float(f"{_GRID ** round(math.log(max(seconds, 1e-9), _GRID)):.3g}")
