"""Pretraining: from unlabelled images to ``backbone.safetensors``.

One loop for all methods. The state after step n is a function of the recipe, the images and n, wherever the process
was killed in between.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge import backbones, distributed, registry
from softedge.config import Recipe
from softedge.data.images import Data, Images
from softedge.data.views import ViewLoader
from softedge.errors import Interrupted, UserError
from softedge.machine.memory import keep_freed
from softedge.progress import say, track
from softedge.records import InputSpec, Outcome
from softedge.run import Run
from softedge.ssl import (
    checkpoint,
    compiling,
    cpu_layers,
    loggers,
    optimizers,
    outcome,
    precision,
    schedule,
    sizing,
    whole_set,
)
from softedge.ssl.guard import Guard
from softedge.ssl.journal import Journal
from softedge.ssl.method import Method
from softedge.ssl.monitor import Knn, measures
from softedge.ssl.signals import StopRequest
from softedge.ssl.stopwatch import Stopwatch
from softedge.weights.checkpoints import not_finite

LOG_STEPS = 100  # at most this many steps between lines of metrics.jsonl; the end of an epoch always has one


class Training:
    """One pretraining on one rank; rank 0 writes metrics.jsonl, last.pt and backbone.safetensors into ``folder``."""

    def __init__(self, run: Run, recipe: Recipe, data: Data, folder: Path):
        self.run, self.recipe, self.data, self.folder = run, recipe, data, folder
        keep_freed()
        self.device = distributed.device()
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # every step has the same shapes
        checkpoint.seed_everything(recipe.seed + distributed.rank())
        self.dtype = precision.resolve(recipe.optim.precision, self.device)
        self.method = self._method(data.pretrain)
        self.optimizer = optimizers.build(recipe.optim, self.method.trained_parameters())
        self.views = self._loader()
        self.epoch_steps = self.views.steps_per_epoch
        self.steps = self.epoch_steps * recipe.ssl.epochs
        self.step, self.loss_sum, self.loss_count = 0, torch.zeros((), device=self.device), 0
        self.clock = self.method.clock = Stopwatch(self.device.type)
        self.journal = Journal(folder / "metrics.jsonl", writing=distributed.rank() == 0)
        if distributed.rank() == 0:
            self.journal.others = loggers.open_all(recipe.ssl.log, folder, recipe)
        self.guard, self.knn = Guard(recipe), self._knn()

    def _loader(self) -> ViewLoader:
        recipe, data = self.recipe, self.data
        return ViewLoader(
            data.pretrain,
            self.method.views(recipe, data.spec.size),
            recipe.ssl.batch // distributed.world(),
            recipe.seed,
            recipe.data.workers,
            rank=distributed.rank(),
            world=distributed.world(),
            device=self.device.type,
        )

    def _method(self, images: Images) -> Method:
        recipe = self.recipe
        backbone = backbones.build(recipe.backbone, recipe.seed)
        method: Method = registry.lookup(registry.METHODS, recipe.ssl.method, "method").build(recipe, backbone, images)
        method.to(self.device).to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            cpu_layers.put_on(method, self.dtype)
        compiling.compile_networks(method.networks(), recipe.optim.compile)
        return method.train()

    def _knn(self) -> Knn | None:
        if self.recipe.ssl.knn_every == 0 or distributed.rank() != 0:
            return None
        return Knn.build(self.recipe, self.data)

    def work(self) -> Outcome:
        """Train to the end, from the last checkpoint if there is one."""
        notes = sizing.notes(self.recipe, len(self.data.pretrain))
        self._resume()
        for note in notes if distributed.rank() == 0 else ():
            say(note)
        stop = StopRequest()
        with stop.listening(), checkpoint.full_disk_explained(self.folder):
            if self.step == 0 and self.knn:
                self.journal.write({"step": 0, "epoch": 0.0, "knn_top1": self.knn.top1(self.method.backbone)})
            for _ in self._shown(self._batches()):
                if distributed.anyone(stop.asked):
                    self._save()
                    raise Interrupted(
                        f"stopped at epoch {self.step / self.epoch_steps:.1f} of {self.recipe.ssl.epochs}, checkpoint "
                        f"written to {self.folder / 'last.pt'}; run the same command again to resume",
                        stop.exit_code,
                    )
        if distributed.rank() == 0:
            backbones.save(self.folder / "backbone.safetensors", self.method.backbone, self.data.spec)
        return outcome.of(self.recipe, self.journal, len(self.data.pretrain), self.steps, notes, self.dtype)

    def _shown(self, steps: Iterator[int]) -> Iterator[int]:
        if distributed.rank() != 0:
            return steps
        return iter(track(steps, f"pretraining ({self.recipe.ssl.method})", self.steps, before=self.step))

    def _batches(self) -> Iterator[int]:
        """Run all steps that are left; yields after each, when the state is complete."""
        self.clock.reset()
        began = time.perf_counter()
        while self.step < self.steps:
            epoch, at = divmod(self.step, self.epoch_steps)
            if at == 0:
                self.method.before_epoch(epoch, self._embed)
                self.clock.start()
            for views, index in self.views.epoch(epoch, at):
                self.clock.lap("data")
                self.update(views, index)
                ended = self.step % self.epoch_steps == 0
                if ended or self.step % self.epoch_steps % LOG_STEPS == 0:
                    began = self._log(began)
                if ended:
                    self._end_of_epoch()
                yield self.step
                self.clock.start()

    def update(self, views: Sequence[Tensor], index: Tensor) -> None:
        """One update of the weights: the micro-batches, the mean gradient of all ranks, the step, the method's own."""
        settings = self.recipe.optim
        compiling.begin_step(settings.compile)
        warmup = min(settings.warmup_epochs / self.recipe.ssl.epochs, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * schedule.learning_rate(self.step / self.steps, warmup)
        parts = [t.to(self.device, non_blocking=True).chunk(settings.accumulate) for t in (*views, index)]
        for *part, which in zip(*parts):
            normalised = [backbones.normalise(view, self.data.spec) for view in part]
            with precision.autocast(self.dtype, self.device):
                loss = self.method(normalised, which) / settings.accumulate
            loss.backward()
            self.loss_sum += loss.detach()
            self.clock.lap("backward")
        parameters = self.method.trained_parameters()
        distributed.average_gradients(parameters)
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.loss_count += 1
        self.method.after_step(self.step / self.steps)
        self.clock.lap("update")

    def _embed(
        self, network: nn.Module, chosen: NDArray[np.int64] | None = None, spec: InputSpec | None = None
    ) -> Tensor:
        return whole_set.embed(network, self.data.pretrain, spec or self.data.spec, self.device, chosen)

    def _log(self, began: float) -> float:
        """Write a line about the steps since the last one; returns the new beginning."""
        loss = float(distributed.mean(self.loss_sum / max(self.loss_count, 1)))
        parts = {f"s_{name}": round(seconds, 4) for name, seconds in self.clock.seconds().items()}
        seconds = time.perf_counter() - began
        entry: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.epoch_steps,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.method.measures(),
            **(measures(*self.method.latest) if self.method.latest else {}),
            "images_per_second": round(self.loss_count * self.recipe.ssl.batch / max(seconds, 1e-9), 1),
            "seconds": round(seconds, 4),
            **parts,
        }
        every = self.recipe.ssl.knn_every
        epoch, within = divmod(self.step, self.epoch_steps)
        if self.knn and every and within == 0 and (epoch % every == 0 or self.step == self.steps):
            entry["knn_top1"] = self.knn.top1(self.method.backbone)
        self.journal.write(entry)
        for warning in self.guard.look(entry, self.step / self.steps):
            self.journal.warn(warning)
        self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), 0
        self.clock.reset()
        return time.perf_counter()

    def _end_of_epoch(self) -> None:
        epoch = self.step // self.epoch_steps
        if distributed.differing(self.method.shared_state()):
            raise UserError(
                f"pretrain: the ranks' weights or queues differ after epoch {epoch}: a fault of machine or program, "
                "not of the recipe; the last checkpoint predates it"
            )
        if epoch % self.recipe.ssl.checkpoint_every == 0 or self.step == self.steps:
            self._save()

    def _save(self) -> None:
        # The loss shows NaN weights one step later: without this a checkpoint, and the last step, could hold them.
        broken = not_finite(self.method.state_dict().items())
        if distributed.anyone(bool(broken)):
            epoch = self.step / self.epoch_steps
            raise self.guard.exploded(
                f"{broken or 'a weight'} is not finite after step {self.step} (epoch {epoch:.1f})"
            )
        position = {
            "step": self.step,
            "loss_sum": distributed.gather(self.loss_sum[None]).tolist(),  # by rank
            "loss_count": self.loss_count,
            "guard": self.guard.state(),
            "threads": torch.get_num_threads(),  # sums are split among them: another number would give other bits
        }
        checkpoint.save(self.folder / "last.pt", self.method, self.optimizer, position)

    def _resume(self) -> None:
        position = checkpoint.load(self.folder / "last.pt", self.method, self.optimizer)
        if position is None:
            if distributed.rank() == 0 and self.journal.path.exists() and self.journal.path.stat().st_size:
                say(f"pretrain: an earlier start left no checkpoint in {self.folder}; starting at step 0")
            self.journal.keep_until(-1)
            return
        self.step, self.loss_count = position["step"], position["loss_count"]
        sums = position["loss_sum"]  # one number in checkpoints of earlier versions
        self.loss_sum.fill_(sums[distributed.rank()] if isinstance(sums, list) else sums)
        self.guard.restore(position["guard"])
        if self.device.type == "cpu":
            torch.set_num_threads(position.get("threads", torch.get_num_threads()))
        self.journal.keep_until(self.step)
        if distributed.rank() == 0:
            say(f"pretrain: resuming at epoch {self.step / self.epoch_steps:.1f} of {self.recipe.ssl.epochs}")
