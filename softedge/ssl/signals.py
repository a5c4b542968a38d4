"""Ctrl-C and SIGTERM as a request to stop after the step that is running."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from softedge import distributed
from softedge.progress import say


class StopRequest:
    """``asked`` turns true at the first SIGINT or SIGTERM; one more Ctrl-C stops at once, without a checkpoint."""

    def __init__(self) -> None:
        self.asked = False
        self.exit_code = 130  # of the process, as a shell reports it: 128 + the signal's number
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over for a while (only possible in the main thread; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            # Under torchrun one Ctrl-C arrives twice: from the terminal, and passed on by the agent as a SIGTERM.
            if number == signal.SIGINT and time.monotonic() - self._since > 1.0:
                raise KeyboardInterrupt
            return
        self.asked, self._since, self.exit_code = True, time.monotonic(), 128 + number
        # A launcher also sends SIGTERM when another rank has failed: then there is no checkpoint to promise.
        if distributed.rank() == 0 and not (distributed.launched() and number == signal.SIGTERM):
            say(
                f"{signal.Signals(number).name}: finishing this step and writing a checkpoint; press Ctrl-C again to "
                "stop at once"
            )
