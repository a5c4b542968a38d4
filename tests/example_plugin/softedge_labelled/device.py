"""A machine that runs the labelled files alone."""

from __future__ import annotations

from typing import Any

from softedge.bench.local.device import Local


class BenchTop(Local):
    formats = ("labelled",)
    called = "the bench top"

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "name": "Bench top"}
