"""How much shared memory loader processes may fill: a container has 64 MB of it unless it is started with more.

A worker that writes beyond it is killed by the system (SIGBUS) without a word, so what fits is worked out before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

FOLDER = "/dev/shm"
_ENOUGH = 2 << 30  # bytes; with more of it free, whole batches may stay in it until they are used


@dataclass(frozen=True)
class Shares:
    """workers: processes.  chunk: images in a message.  prefetch: messages that a worker makes ahead.
    taken_out: messages are copied out of the shared memory as they arrive, not batch by batch."""

    workers: int
    chunk: int
    prefetch: int
    taken_out: bool


def free_bytes() -> int | None:
    """Free shared memory; None where the system does not keep it in a file system of its own."""
    try:
        status = os.statvfs(FOLDER)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def fitting(workers: int, bytes_per_image: int, free: int | None, chunk: int = 32, prefetch: int = 4) -> Shares:
    """As much as was asked for, or what fits into half of the free shared memory: fewer messages ahead, then fewer
    images in a message, then fewer workers; 0 workers where not one image fits."""
    if free is None or free >= _ENOUGH or workers == 0:
        return Shares(workers, chunk, prefetch, False)
    images = free // 2 // bytes_per_image  # at a time, of all workers
    for ahead in range(prefetch, 0, -1):
        if workers * ahead * chunk <= images:
            return Shares(workers, chunk, ahead, True)
    workers = min(workers, images)
    return Shares(workers, min(chunk, images // workers) if workers else chunk, 1, True)
