"""How long this machine takes for an image: a few steps of training, in processor time."""

from __future__ import annotations

import math
import statistics
import time

import torch
from torch import nn

from softedge import config
from softedge.backbones import Classifier, build, normalise
from softedge.machine import threads
from softedge.machine.memory import give_back, keep_freed
from softedge.records import InputSpec
from softedge.ssl import cpu_layers, precision

_STEPS = 3
_GRID = 1.25  # ratio of neighbouring values that are reported: two measurements differ by some per cent
_BATCH = 32  # of the recipes
_LOADING = 1.15  # cropping and decoding beside the training step, assumption
_LARGE = 1e6  # numbers that a convolution gives on average
_WORTH = 0.8  # of the time on the clock, for a thread on every core


def measured(settings: config.Backbone, size: int) -> tuple[float, int]:
    """Seconds an image takes in a training step at ``size`` pixels, and the threads that it was measured with.

    Rounded so that noise seldom shows.  On a GPU by the clock; on a CPU in processor time shared by the threads: other
    work on the machine does not count.  Threads: 0 for those that other stages compute with, or every core where that
    is clearly faster by the clock: it is not while something else has one of them.
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = InputSpec(size, size, (0.5,) * 3, (0.5,) * 3)
    model = Classifier(build(settings.model_copy(update={"weights": "random"})), ("a", "b"), spec)
    tried = [0]
    if place.type == "cpu" and not threads.GIVEN and threads.cores() > torch.get_num_threads():
        tried += [threads.cores()] if large_layers(model.backbone, size, _BATCH) else []
    model.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    dtype = precision.resolve("auto", place)
    if place.type == "cpu":
        keep_freed()
        cpu_layers.put_on(model, dtype)
    images = torch.randint(0, 256, (_BATCH, size, size, 3), dtype=torch.uint8)
    labels = torch.zeros(_BATCH, dtype=torch.long, device=place)

    def step() -> None:
        with precision.autocast(dtype, place):
            loss = torch.nn.functional.cross_entropy(model(normalise(images.to(place), spec)), labels)
        loss.backward()
        if place.type == "cuda":
            torch.cuda.synchronize()

    step()  # memory and kernels
    on_the_clock: dict[int, list[float]] = {count: [] for count in tried}
    of_one_thread: dict[int, list[float]] = {count: [] for count in tried}
    for _ in range(_STEPS):
        for count in tried:
            with threads.using(count):
                started, used = time.perf_counter(), time.process_time()
                step()
                on_the_clock[count].append(time.perf_counter() - started)
                of_one_thread[count].append((time.process_time() - used) / torch.get_num_threads())
    typical = {count: statistics.median(taken) for count, taken in on_the_clock.items()}
    chosen = tried[-1] if typical[tried[-1]] <= _WORTH * typical[0] else 0
    taken = on_the_clock if place.type == "cuda" else of_one_thread
    give_back()
    return on_grid(_LOADING * min(taken[chosen]) / _BATCH), chosen


@torch.no_grad()
def large_layers(network: nn.Module, size: int, batch: int) -> bool:
    """Whether a convolution gives a million numbers on average for a batch: worth a thread on every core.

    Threads wait for each other after every layer.  Where another process has a core, that takes milliseconds: little
    beside a large layer, five times the layer itself for a small one (``benchmarks/threads.py``).
    network: (N, 3, S, S) -> anything; left as it is.  size: pixels.  batch: images.
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
