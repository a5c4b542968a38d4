"""metrics.jsonl: one line per logged step, kept consistent with the checkpoint a run resumes from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from softedge.files import read_text
from softedge.progress import say
from softedge.run import write_text
from softedge.ssl.loggers import Log


class Journal:
    """Appends entries with their step; ``keep_until`` forgets what a resumed run will do again."""

    def __init__(self, path: Path, writing: bool = True):
        self.path, self.writing = path, writing
        self.entries: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.others: list[Log] = []

    def keep_until(self, step: int) -> None:
        """Read what is there up to ``step`` (inclusive) and drop later and half-written lines."""
        self.entries = []
        if self.path.exists():
            for line in read_text(self.path, "utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    at = entry["step"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    break  # killed while writing
                if at <= step:
                    self.entries.append(entry)
        self.warnings = [w for e in self.entries if (w := e.get("warning"))]
        if self.writing:
            write_text(self.path, "".join(_line(e) for e in self.entries))
        self.entries = [e for e in self.entries if "warning" not in e]

    def write(self, entry: dict[str, Any]) -> None:
        entry = {k: round(v, 6) if isinstance(v, float) else v for k, v in entry.items()}
        self.entries.append(entry)
        self._append(entry)
        for log in self.others:
            log(entry)

    def warn(self, warning: str) -> None:
        """Record a warning in the file and show it to the user."""
        self.warnings.append(warning)
        self._append({"step": self.entries[-1]["step"], "warning": warning})
        if self.writing:
            say(f"pretrain: {warning}")

    def _append(self, entry: dict[str, Any]) -> None:
        if self.writing:
            with open(self.path, "a") as file:
                file.write(_line(entry))


def _line(entry: dict[str, Any]) -> str:
    finite = {k: (v if not isinstance(v, float) or math.isfinite(v) else None) for k, v in entry.items()}
    return json.dumps(finite) + "\n"
