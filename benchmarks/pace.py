"""How fast a recipe trains: whole steps, after as many to warm up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cifar import PLACE

from softedge import config
from softedge.data.images import Data
from softedge.run import Run
from softedge.ssl.train import Training


def images_per_second(
    recipe: config.Recipe,
    data: Data,
    folder: Path,
    steps: int,
    full_queue: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Of whole training steps, after as many to warm up.  clock: seconds of the wall, or of the processor."""
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(Run(folder), recipe, data, folder)
    if full_queue:
        queue: Any = training.method.queue
        queue.enqueue(torch.nn.functional.normalize(torch.randn(queue.keys.shape, device=PLACE), dim=1))
    done, began = 0, 0.0
    for epoch in range(10**6):
        for views, index in training.views.epoch(epoch):
            if done in (steps, 2 * steps):
                _wait()
                if done == 2 * steps:
                    return steps * recipe.ssl.batch / (clock() - began)
                began = clock()
            training.update(views, index)
            done += 1
    raise AssertionError


def _wait() -> None:
    if PLACE.type == "cuda":
        torch.cuda.synchronize()
