"""One way to show progress: a bar on a terminal, plain lines when piped (so that logs stay readable)."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
CAUTION = "caution: "  # begins a line that should stop who did not mean it, before anything is trained
_PLAIN_EVERY_SECONDS = 10.0


_JOINERS = "\u200c\u200d"  # invisible, and part of words and emoji


def on_one_line(text: str) -> str:
    r"""A line for the terminal: newlines and escape sequences, as in names of files, become ``\n`` and ``\x1b``."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in _JOINERS or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)
    return "".join(shown)


def without_controls(text: str) -> str:
    r"""Several lines for a file that is shown: escape sequences, as in names of classes, become ``\x1b``."""
    return text.translate(_CONTROLS)


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python keeps a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


_CONTROLS = {code: _escaped(chr(code)) for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def say(text: str) -> None:
    """Print one line about what is going on, to stderr: stdout is for results."""
    print(on_one_line(text), file=sys.stderr, flush=True)


def track(items: Iterable[T], what: str, total: int | None = None, before: int = 0) -> Iterator[T]:
    """Yield ``items`` while showing how far along they are.

    total: of all, those before included.  before: how many an earlier start has done.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        console = Console(file=sys.stderr)  # this stream, also where a block of ``quiet`` puts another in its place
        yield from rich_track(items, what, total=total, completed=before, console=console, transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=before + 1):
        yield item
        if time.monotonic() - last > _PLAIN_EVERY_SECONDS:
            say(f"{what}: {done}/{total if total is not None else '?'}")
            last = time.monotonic()


def plural(number: float, one: str, many: str = "", written: Callable[[float], str] = "{:,}".format) -> str:
    """``1 image is left out``, ``1,200 images are left out``.  written: how the number is; as on a terminal."""
    return f"{written(number)} {one if number == 1 else many or one + 's'}"
