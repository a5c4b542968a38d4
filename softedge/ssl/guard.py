"""Stops a failing training early, with one line that names the cause and the setting to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from softedge.config import Recipe
from softedge.errors import UserError

_COLLAPSED_STD = 0.05  # of 1: every image at nearly the same point (assumption, not measured)
_COLLAPSED_RANK = 1.5
_SETTLED = 0.1  # of training: before, small networks pass through low ranks and recover
_PATIENCE = 5  # log entries in a row before a state counts
_STUCK_AFTER = 0.3  # of training
_DIVERGING = 0.5  # × the best loss so far (SimSiam's is negative) above it


class Guard:
    """``look`` at every log entry; raises UserError where continuing is pointless, else returns warnings."""

    def __init__(self, recipe: Recipe):
        self.lr, self.recipe = recipe.optim.lr, recipe
        self.best = math.inf
        self.highest = -math.inf
        self.objective = 0.0
        self.entries = self.flat_entries = self.worse_entries = 0
        self._warned: set[str] = set()

    def look(self, entry: Mapping[str, float], progress: float) -> list[str]:
        """entry: a line of metrics.jsonl.  progress: share of training done."""
        loss = entry["loss"]
        where = f"step {int(entry['step'])} (epoch {entry['epoch']:.1f})"
        if not math.isfinite(loss):
            raise self.exploded(f"the loss is {loss} at {where}")
        if entry.get("queue_fill", 1.0) < 1.0:  # the loss rises while the queue fills
            return []
        if entry.get("objective", self.objective) != self.objective:  # another loss: nothing to compare it with yet
            self.objective = entry["objective"]
            self.best, self.highest, self.entries, self.worse_entries = math.inf, -math.inf, 0, 0
        self.entries += 1
        self.highest = max(self.highest, loss)
        warnings = [
            *self._collapse(entry, progress, where),
            *self._divergence(loss, where),
            *self._stuck(loss, progress, where),
        ]
        self.best = min(self.best, loss)
        return [w for w in warnings if self._once(w)]

    def exploded(self, what: str) -> UserError:
        """What to do when a number of the training is NaN or infinite."""
        return UserError(
            f"pretrain: {what}; the learning rate is the usual cause: try --set optim.lr={self.lr / 4:g}, or --set "
            "optim.clip_norm=1, or --set optim.precision=fp32; the last checkpoint predates it"
        )

    def state(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return {
            "best": self.best,
            "highest": self.highest,
            "objective": self.objective,
            "entries": self.entries,
            "flat_entries": self.flat_entries,
            "worse_entries": self.worse_entries,
            "warned": sorted(self._warned),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        self.best, self.highest, self.entries = state["best"], state["highest"], state["entries"]
        self.flat_entries, self.worse_entries = state["flat_entries"], state["worse_entries"]
        self.objective = state.get("objective", 0.0)
        self._warned = set(state["warned"])

    def _collapse(self, entry: Mapping[str, float], progress: float, where: str) -> list[str]:
        flat = entry.get("std", 1.0) < _COLLAPSED_STD or entry.get("effective_rank", 9.0) < _COLLAPSED_RANK
        self.flat_entries = self.flat_entries + 1 if flat and progress >= _SETTLED else 0
        if self.flat_entries < _PATIENCE:
            return []
        raise UserError(
            f"pretrain: collapsed at {where}: embeddings have a standard deviation of {entry.get('std', 0):.3f} (1 is "
            f"healthy) and an effective rank of {entry.get('effective_rank', 0):.1f}; try "
            f"--set optim.lr={self.lr / 4:g}, a longer optim.warmup_epochs, --set ssl.projector_norm=true or a larger "
            "ssl.queue"
        )

    def _divergence(self, loss: float, where: str) -> list[str]:
        self.worse_entries = self.worse_entries + 1 if loss > self.best + _DIVERGING * abs(self.best) else 0
        if self.worse_entries < _PATIENCE:
            return []
        self.worse_entries = 0
        return [
            f"the loss has risen from {self.best:.2f} to {loss:.2f} by {where}: the learning rate is too high; "
            f"try --set optim.lr={self.lr / 2:g} or a longer optim.warmup_epochs"
        ]

    def _stuck(self, loss: float, progress: float, where: str) -> list[str]:
        if progress < _STUCK_AFTER or self.entries < _PATIENCE or min(self.best, loss) < 0.98 * self.highest:
            return []
        return [
            f"the loss has stayed at {self.highest:.2f} until {where}: the learning rate may be too low "
            f"(try --set optim.lr={self.lr * 3:g}), or the crops share nothing (try --set augment.min_area=0.4)"
        ]

    def _once(self, warning: str) -> bool:
        kind = warning.split(" from ")[0]
        new = kind not in self._warned
        self._warned.add(kind)
        return new
