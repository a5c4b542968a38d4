"""``softedge verify``: replay the golden images of an exported model with this machine's runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softedge import registry


def verify(folder: str | Path) -> dict[str, Any]:
    """Replay the golden images of an export folder with this machine's runtime; GateFailed on a difference."""
    from softedge.export.verify import verify as replay

    if plugin := registry.owner(folder):
        rows: dict[str, Any] = plugin.verify(folder=Path(folder))
        return rows
    return replay(Path(folder))
