"""Ctrl-C and SIGTERM as a request to stop after the step that is running."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from softedge.progress import say


class StopRequest:
    """``asked`` turns true at the first SIGINT or SIGTERM; a second one stops at once, without a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

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
            raise KeyboardInterrupt
        self.asked = True
        say(f"{signal.Signals(number).name}: finishing this step and writing a checkpoint; once more to stop at once")
