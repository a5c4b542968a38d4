"""What ``softedge transfer`` is going to do: the settings that a recipe leaves open, by data, network and machine.

Numbers without a source are assumptions, not measured.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softedge.detection.models import Head
from softedge.detection.scenes import Scenes
from softedge.detection.settings import Transfer
from softedge.detection.tasks import Task
from softedge.progress import plural
from softedge.run import read_json, write_json

FILE = "plan.json"
MINUTES_ON_CPU = 15.0  # of training, where the recipe gives no limit
_PAPERS_BATCH = 16  # pictures, of MoCo's schedule and of the rate 0.02
_LARGEST_SQUARE = 320  # pixels, of SSDLite's input (Sandler et al. 2018)
_CPU_SHORT_SIDE, _CPU_BATCH = 480, 2  # of R-CNN heads: at 800 pixels 16 pictures take 18 GB
_FEWEST = 100  # iterations: fewer do not even pass the warm-up
_STRIDE = 32


def resolve(settings: Transfer, network: str, task: Task, train: Scenes, place: torch.device) -> Transfer:
    """The settings with nothing left open but the iterations' limit in time.

    Iterations grow with the pictures to the power of 2/3 through MoCo's on its own data (24,000 for the 16,551 pictures
    of VOC 07+12; the same rule gives 88,500 for COCO's 117,266, where MoCo has 90,000).
    """
    gpu = place.type == "cuda"
    head = settings.head
    if head == "auto":  # the paper's head where it can be trained, else the one for phones
        head = "c4" if network.startswith("resnet") and gpu else "ssdlite"
    batch = settings.batch or _batch(head, gpu)
    lr = settings.lr if settings.batch else settings.lr * batch / _PAPERS_BATCH
    sides = settings.short_sides or _short_sides(head, task, train, gpu)
    test_side = settings.test_short_side or (800 if gpu else max(sides))
    iterations, warmup = settings.iterations, settings.warmup
    if not iterations:
        learnt = sum(len(scene.trainable()[1]) > 0 for scene in train.scenes)
        share = (learnt / task.pictures) ** (2 / 3)
        iterations = max(_FEWEST, round(task.iterations * share * _PAPERS_BATCH / batch))
        warmup = min(warmup, iterations // 10)
    changes = {"head": head, "batch": batch, "lr": lr, "short_sides": sides, "test_short_side": test_side}
    return settings.model_copy(update={**changes, "iterations": iterations, "warmup": warmup})


def _short_sides(head: Head, task: Task, train: Scenes, gpu: bool) -> tuple[int, ...]:
    if head != "ssdlite" and gpu:
        return task.short_sides
    longer = head == "ssdlite"  # its input is a square: the longer side says how large the picture is
    middle = float(np.median([(max if longer else min)(scene.width, scene.height) for scene in train.scenes]))
    limit = _LARGEST_SQUARE if longer else _CPU_SHORT_SIDE
    return (int(min(limit, max(2 * _STRIDE, math.ceil(middle / _STRIDE) * _STRIDE))),)


def _batch(head: Head, gpu: bool) -> int:
    if head == "ssdlite":
        return _PAPERS_BATCH
    if not gpu:
        return _CPU_BATCH
    free = torch.cuda.mem_get_info()[0] / 1e9
    return next((batch for batch, needed in ((16, 22), (8, 11), (4, 6)) if free > needed), 2)


@dataclass(frozen=True)
class TransferPlan:
    """What is going to be done, kept beside the checkpoint: a resumed training does the same.

    wanted: iterations that the data suggests or the recipe says; iterations: those that fit into the time there is.
    """

    head: str
    side: int
    batch: int
    wanted: int
    iterations: int
    seconds_per_iteration: float
    place: str

    @classmethod
    def made(cls, settings: Transfer, seconds: float, place: torch.device, given: bool) -> TransferPlan:
        """given: the recipe says how many iterations, so that no limit in time holds."""
        minutes = settings.minutes or (0.0 if place.type == "cuda" else MINUTES_ON_CPU)
        fit = settings.iterations
        if minutes and not given:
            fit = max(1, min(fit, int(60 * minutes / max(seconds, 1e-6))))
        side = max(settings.short_sides)
        return cls(str(settings.head), side, settings.batch, settings.iterations, fit, seconds, place.type)

    @classmethod
    def read(cls, folder: Path) -> TransferPlan | None:
        """The plan of a training that was interrupted."""
        return cls(**read_json(folder / FILE)) if (folder / FILE).is_file() else None

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self, pictures: int) -> list[str]:
        """For a person, before it starts."""
        rounds = self.iterations * self.batch / max(1, pictures)
        passes = plural(round(rounds), "pass", "passes", str) if rounds >= 0.5 else "less than one pass"
        lines = [
            f"{self.head} at {self.side} pixels, {_iterations(self.iterations)} of {plural(self.batch, 'picture')} "
            f"({passes}), about {_minutes(self.iterations * self.seconds_per_iteration)} on this {_PLACES[self.place]}"
        ]
        if self.iterations < self.wanted:
            needed = _minutes(self.wanted * self.seconds_per_iteration)
            lines.append(
                f"{_iterations(self.wanted)} would suit {plural(pictures, 'picture')} and take {needed}; give them "
                f"with --set transfer.minutes={math.ceil(self.wanted * self.seconds_per_iteration / 60)}"
            )
        return lines


_PLACES = {"cpu": "CPU", "cuda": "GPU"}


def _iterations(count: int) -> str:
    return plural(count, "iteration", written=str)


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
