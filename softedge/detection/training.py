"""The training loop of a detector: MoCo's schedule on Detectron2 (He et al. 2020, arXiv 1911.05722, appendix).

SGD at 0.02 for 16 images, linear warm-up, tenfold falls at fixed iterations, every layer trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.detection.batches import Batches
from softedge.detection.models import parameter_groups
from softedge.detection.settings import Transfer
from softedge.errors import ADD_FORCE, Interrupted, UserError
from softedge.progress import say, track
from softedge.ssl.signals import StopRequest
from softedge.weights import checkpoints

CHECKPOINT = "last.pt"
_CHECKPOINT_SECONDS = 60.0
_TIMED = 3  # batches


def rate(iteration: int, iterations: int, warmup: int, milestones: tuple[float, float]) -> float:
    """In units of the full rate: linear from 1/1000 over the warm-up, a tenth after each milestone."""
    falls = sum(iteration >= fraction * iterations for fraction in milestones)
    rise = 1.0 if iteration >= warmup else 0.001 + 0.999 * iteration / warmup
    return rise * 0.1**falls


def total_loss(model: nn.Module, images: Any, targets: Any) -> Tensor:
    """The sum of a detector's losses, on the model's device."""
    place = next(model.parameters()).device
    images = [image.to(place) for image in images]
    targets = [{k: v.to(place) for k, v in target.items()} for target in targets]
    return torch.stack(list(model(images, targets).values())).sum()


def seconds_per_iteration(model: nn.Module, batches: Batches) -> float:
    """Measured on a copy of the model: loading, forward and backward of a few batches, without the first."""
    copy, seconds = deepcopy(model).train(), []
    began = time.monotonic()
    for images, targets in batches.from_iteration(0, 1 + _TIMED):
        total_loss(copy, images, targets).backward()
        if next(copy.parameters()).is_cuda:
            torch.cuda.synchronize()
        now = time.monotonic()
        seconds.append(now - began)
        began = now
    return float(np.median(seconds[1:]))


class DetectorTraining:
    """Trains ``model`` in place for ``iterations``; ``losses`` and ``curve`` grow while it runs.

    score: called every ``transfer.evaluate_every`` iterations, gives average precisions by name.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Transfer,
        iterations: int,
        milestones: tuple[float, float],
        seed: int,
        score: Callable[[], dict[str, Any]],
    ):
        self.model, self.settings, self.seed, self.score = model, settings, seed, score
        self.iterations, self.milestones = iterations, milestones
        groups = parameter_groups(model, settings.weight_decay)
        self.optimizer = torch.optim.SGD(groups, settings.lr, momentum=settings.momentum)
        self.curve: list[dict[str, float]] = []
        self.losses: list[float] = []

    def run(self, batches: Batches, folder: Path) -> None:
        """To the last iteration, from the checkpoint in ``folder`` where there is one.

        A checkpoint is written every ``checkpoint_every`` iterations, every minute and at the end.  ``Interrupted``
        after Ctrl-C or SIGTERM, with everything saved.
        """
        path, stop = folder / CHECKPOINT, StopRequest()
        start = self._resume(path)
        self.model.train()
        saved = time.monotonic()
        with stop.listening():
            stream = batches.from_iteration(start, self.iterations)
            steps = enumerate(track(stream, "transfer", self.iterations - start), start=start)
            for iteration, (images, targets) in steps:
                self._step(iteration, images, targets)
                done = iteration + 1
                self._evaluate(done)
                every = done % self.settings.checkpoint_every == 0
                if every or stop.asked or done == self.iterations or time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    self._checkpoint(path, done)
                    saved = time.monotonic()
                if stop.asked and done < self.iterations:
                    raise Interrupted(
                        f"iteration {done} of {self.iterations} is saved; run the same command again to resume"
                    )

    def _evaluate(self, done: int) -> None:
        every = self.settings.evaluate_every
        if not every or done % every or done == self.iterations:
            return
        scores = self.score()
        self.curve.append({"iteration": done, **{k: scores[k] for k in ("AP", "AP50") if k in scores}})
        say(f"transfer: iteration {done}, loss {np.mean(self.losses[-50:]):.3f}, AP50 {scores['AP50']:.3f}")

    def _step(self, iteration: int, images: Any, targets: Any) -> None:
        settings = self.settings
        torch.manual_seed(hash((self.seed, iteration)) % (1 << 32))  # scales, sampled regions: also after a resume
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * rate(iteration, self.iterations, settings.warmup, self.milestones)
        loss = total_loss(self.model, images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise UserError(
                f"the detection loss is {self.losses[-1]} at iteration {iteration}; lower it with --set "
                f"transfer.lr={settings.lr / 4:g}, or --set transfer.clip_norm=10"
            )

    def _checkpoint(self, path: Path, done: int) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "iteration": done}
        checkpoints.write(path, {**state, "losses": self.losses, "curve": self.curve})

    def _resume(self, path: Path) -> int:
        if not path.is_file():
            return 0
        try:
            state = checkpoints.read(path)
        except checkpoints.Damaged as error:
            raise UserError(f"{path} is damaged ({error}); {ADD_FORCE} to start over") from error
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses, self.curve = list(state["losses"]), list(state["curve"])
        say(f"transfer: resuming at iteration {state['iteration']}")
        return int(state["iteration"])
