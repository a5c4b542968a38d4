"""The report of one or several runs: report.html, report.json and MODEL_CARD.md. Imports no torch."""

from __future__ import annotations

from softedge.report.changes import compare, compare_folders
from softedge.report.write import report

__all__ = ["compare", "compare_folders", "report"]
