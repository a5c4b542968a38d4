"""A heartbeat between the ranks: none trains on without its launcher, none waits for one that no longer answers.

Each rank counts up in the store of the process group and looks at the others' counters. A rank that waits long, since
rank 0 prepares data, still counts; one that is stopped, swapped out or on a machine that is gone does not. The time-out
of a collective cannot tell these two apart, so it is long (``distributed.joined``).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import threading
import time
from collections.abc import Iterator

from torch import distributed as dist

from softedge import distributed
from softedge.distributed import LEFT_ALONE, SILENT_PEER
from softedge.errors import UserError
from softedge.progress import say

TIMEOUT = "SOFTEDGE_RANK_TIMEOUT"  # s: how long a rank may be silent; of the machines, so not in a recipe
DEFAULT_TIMEOUT = 60.0
_LONGEST_BEAT = 2.0  # s
_DONE = "done"


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch the launcher and the other ranks while the body runs, from a thread; alone nothing happens.

    Without its launcher a rank gets SIGTERM, so that a training writes its checkpoint. When another rank is silent for
    ``SOFTEDGE_RANK_TIMEOUT`` seconds, the process exits with SILENT_PEER: its main thread may be waiting for that rank.
    """
    if distributed.world() == 1:
        yield
        return
    watch = _Watch(distributed.rank(), distributed.world(), _timeout())
    thread = threading.Thread(target=watch.run, name="softedge-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.over.set()
        thread.join()


def _timeout() -> float:
    asked = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(asked) if asked else DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not seconds >= 1:
        raise UserError(f"{TIMEOUT}={asked}: give a number of seconds, at least 1")
    return seconds


class _Watch:
    def __init__(self, rank: int, world: int, timeout: float):
        self.rank, self.timeout = rank, timeout
        self.over = threading.Event()
        self.beat = min(_LONGEST_BEAT, timeout / 5)
        # A connection of its own: the group's is locked while the main thread waits on it.
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=datetime.timedelta(seconds=timeout),
        )
        self.store = dist.PrefixStore("softedge-watch", store)
        self.launcher = int(os.environ["SOFTEDGE_LAUNCHED"]) if distributed.launched() else None
        self.counters: dict[int, str] = {other: "" for other in range(world) if other != rank}
        self.changed = dict.fromkeys(self.counters, time.monotonic())

    def run(self) -> None:
        count, before = 0, time.monotonic()
        while not self.over.wait(self.beat):
            if self.launcher is not None and os.getppid() != self.launcher:
                return self._launcher_is_gone()
            now = time.monotonic()
            if now - before > self.timeout / 2:  # this rank itself was stopped: nothing is known of the others
                self.changed = dict.fromkeys(self.changed, now)
            before, count = now, count + 1
            with contextlib.suppress(RuntimeError):  # a store that is gone is as silent as a rank
                self._exchange(str(count))
            if silent := [r for r, at in self.changed.items() if time.monotonic() - at > self.timeout]:
                return self._left_alone(silent)
        with contextlib.suppress(RuntimeError):
            self.store.set(str(self.rank), _DONE)

    def _exchange(self, count: str) -> None:
        self.store.set(str(self.rank), count)
        for other, known in self.counters.items():
            counter = self.store.get(str(other)).decode() if self.store.check([str(other)]) else ""
            if counter != known or counter == _DONE:
                self.counters[other], self.changed[other] = counter, time.monotonic()

    def _launcher_is_gone(self) -> None:
        if self.rank == 0:
            with contextlib.suppress(OSError):  # the terminal may have gone along
                say("the process that started the ranks is gone: they write a checkpoint and end")
        os.kill(os.getpid(), signal.SIGTERM)
        if not self.over.wait(float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120"))):
            os._exit(LEFT_ALONE)

    def _left_alone(self, silent: list[int]) -> None:
        if self.over.is_set():
            return
        if self.rank == min({self.rank, *self.counters} - set(silent)):  # one says it for all
            names = ", ".join(map(str, silent))
            with contextlib.suppress(OSError):
                say(f"rank {names} has not answered for {self.timeout:.0f} s ({TIMEOUT}): the other ranks end")
        os._exit(SILENT_PEER)
