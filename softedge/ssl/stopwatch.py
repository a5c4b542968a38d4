"""Where a step's time goes, without slowing it down."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Sums the time between laps under the name of the part that ended. On CUDA it uses events: no wait per lap."""

    def __init__(self, device: str = "cpu"):
        self.on_gpu = torch.device(device).type == "cuda"
        self.reset()

    def reset(self) -> None:
        """Forget all sums and start the next lap now."""
        self._sums: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.start()

    def start(self) -> None:
        """Start the next lap now; the time since the last lap belongs to nothing."""
        self._last = self._now()

    def lap(self, part: str) -> None:
        """The time since the last lap (or start) went into ``part``."""
        now = self._now()
        if self.on_gpu:
            self._events.append((part, self._last, now))
        else:
            self._sums[part] = self._sums.get(part, 0.0) + now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Seconds per part since ``reset``. On CUDA this waits for the device: ask rarely."""
        if self._events:
            torch.cuda.synchronize()
            for part, begin, end in self._events:
                self._sums[part] = self._sums.get(part, 0.0) + begin.elapsed_time(end) / 1000
            self._events.clear()
        return dict(self._sums)

    def _now(self):  # type: ignore[no-untyped-def]  # a float or a CUDA event
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
