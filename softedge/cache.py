"""The folder for what can be made or fetched again: downloaded runtimes, decoded images."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$SOFTEDGE_CACHE``, else ``$XDG_CACHE_HOME/softedge``, else ``~/.cache/softedge``."""
    if chosen := os.environ.get("SOFTEDGE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "softedge"
