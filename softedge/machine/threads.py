"""How many threads PyTorch computes with on a CPU, and how they wait for each other.

OpenMP's threads spin while they wait. Where another process (a loader, a second training) has one of the cores, all
spin until the one without a core gets its turn: on two cores with two other busy processes a training step of 20 ms
took 5 s with two threads, and 30 ms with one. ``benchmarks/threads.py`` measures it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

GIVEN = os.environ.get("OMP_NUM_THREADS")  # the user's own choice, as this process found it
SPINS = 10_000  # some 20 us: costs nothing on an idle machine, and then a waiting thread gives its core away


def cores() -> int:
    """The processors this process may use, which can be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def prepare() -> None:
    """Set the environment for all stages of a command; must come before the first import of torch.

    One core is left to the loader and to whatever else runs; a plan may take it (``eval.pace``). What the user has set
    himself wins.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    if not GIVEN:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() - 1)))


def share(ranks: int) -> None:
    """Divide the cores among the ranks that are about to be started here, unless the user has decided."""
    os.environ["OMP_NUM_THREADS"] = GIVEN or str(max(1, cores() // ranks))


@contextlib.contextmanager
def using(count: int) -> Iterator[None]:
    """Compute with ``count`` threads in a block of PyTorch, at most one a core.

    0, or a number that the user has set himself, leaves them as they are.
    """
    import torch

    before = torch.get_num_threads()
    if count and not GIVEN:
        torch.set_num_threads(min(count, cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
