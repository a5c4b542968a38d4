"""A run of which something is damaged, or gone: its report says so first, and no file of it is one to ship."""

from __future__ import annotations

from collections.abc import Sequence

from softedge.errors import quoted
from softedge.report import stages
from softedge.report.verdict import Pick, Verdict
from softedge.run import Run


def because(damaged: Sequence[str]) -> str:
    """The first of what is damaged, and how much more there is."""
    more = f" (and {len(damaged) - 2} more)" if len(damaged) > 2 else ""
    return f"not to be relied on: {'; '.join(damaged[:2])}{more}"


def named(run: Run, damaged: Sequence[str]) -> list[str]:
    """The lines without the place where the run is stored: a report must not show it."""
    return [line.replace(str(run.root), stages.place(run)) for line in damaged]


def withheld(verdict: Verdict, run: Run, damaged: Sequence[str]) -> Verdict:
    """The verdict; where something is damaged, that instead, in lines of ``named``."""
    if not damaged:
        return verdict
    answer = f"This report is {because(damaged)}."
    reason = f"No file is recommended before that is repaired; then run: softedge report {quoted(stages.place(run))}"
    return Verdict((Pick(verdict.headline.device, "not to be relied on", "", answer, reason),), verdict.cautions)
