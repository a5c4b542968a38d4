"""What ``gpu.py`` has measured so far, the time that is left, and programs that are run within it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass
class Session:
    """What is measured so far, and the time that is left."""

    out: Path
    until: float  # of time.monotonic()
    dry: bool
    seeds: tuple[int, ...] = (0,)
    known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = self.out / "rows.jsonl"
        text = self.file.read_text() if self.file.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # killed while writing
                row = json.loads(line)
                self.known[row["name"]] = row
        if text and not text.endswith("\n"):
            with self.file.open("a") as file:
                file.write("\n")

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def row(self, part: str, name: str, limit: float, work: Callable[[float], dict[str, Any]], whole: bool) -> None:
        """Measure one row within ``limit`` seconds (of what is left), unless an earlier call has it.

        work(seconds) returns its numbers; with "unfinished" among them the row is measured on by the next call.
        whole: it cannot go on where it was stopped, so that it is begun only where all of ``limit`` is left.
        """
        name = f"{part}: {name}"
        if name in self.known and "unfinished" not in self.known[name]:
            print(f"{name}: kept from before", flush=True)
            return
        if self.left() < (limit if whole else min(10.0, limit)):
            print(f"{name}: not run, the time is up", flush=True)
            return
        began = time.monotonic()
        try:
            numbers = work(min(limit, self.left()))
        except Exception as error:  # one row that fails must not cost the lease
            numbers = {"unfinished": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}
        self.note(name, **numbers, seconds=round(time.monotonic() - began, 1))

    def note(self, name: str, **numbers: Any) -> None:
        self.known[name] = {"name": name, **numbers}
        with self.file.open("a") as file:
            file.write(json.dumps(self.known[name]) + "\n")
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in numbers.items()), flush=True)


def child(arguments: list[str], seconds: float) -> tuple[int, str]:
    """Run a Python program; its exit code and the last lines it printed. 124: it ran out of time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=max(seconds, 1.0),
            cwd=HERE.parent,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "out of time"
    return done.returncode, (done.stdout.strip() or done.stderr.strip())


Rows = Iterator[tuple[str, float, Callable[[float], dict[str, Any]]]]
