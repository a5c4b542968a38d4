"""One way to show progress: a bar on a terminal, plain lines when piped (so that logs stay readable)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PLAIN_EVERY_SECONDS = 10.0


def say(text: str) -> None:
    """Print one line about what is going on, to stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while showing how far along they are."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description=what, total=total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > _PLAIN_EVERY_SECONDS:
            say(f"{what}: {done}/{total if total is not None else '?'}")
            last = time.monotonic()
