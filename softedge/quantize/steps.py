"""What the int8 search records: every step, the option that it chose, and a sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from softedge.export.candidates import Candidates, Option
from softedge.export.nearest import Measures
from softedge.progress import plural
from softedge.quantize.selection import promised
from softedge.quantize.sensitivity import Sensitivity

STEPS = (
    "default",
    "translated",
    "calibrated",
    "equalized",
    "rounded",
    "bias",
    "mixed",
    "tuned",
    "tuned-mixed",
    "weights",
)


@dataclass(frozen=True)
class Step:
    """One step: what was done, what it measures on the selection images, whether it is good enough, whether it was
    kept for the steps after it.

    why: what speaks against it; empty when it is good enough.  measures: empty for a step that could not be made.
    """

    name: str
    what: str
    measures: Measures
    size_bytes: int = 0
    time_over_fp32: float | None = None
    why: tuple[str, ...] = ()
    kept: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.why

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "what": self.what,
            **self.measures,
            "size_bytes": self.size_bytes or None,
            "time_over_fp32": self.time_over_fp32,
            "passed": self.passed,
            "why": "; ".join(self.why),
            "kept": self.kept,
            **self.details,
        }


@dataclass(frozen=True)
class Chosen:
    """An option with what can write it.  certain: good enough by the margin for chance, not by the plain gate alone."""

    step: Step
    candidates: Candidates
    option: Option
    certain: bool


@dataclass(frozen=True)
class SearchResult:
    """chosen: None when nothing is better than the default.  layers: by sensitivity, where they were ranked."""

    steps: tuple[Step, ...]
    chosen: Chosen | None
    layers: tuple[Sensitivity, ...]
    recommendation: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "recommendation": self.recommendation,
            "step": self.chosen.step.name if self.chosen else None,
            "steps": [step.to_dict() for step in self.steps],
            "layers": [layer.to_dict() for layer in self.layers],
        }


def recommend(steps: Sequence[Step], chosen: Chosen | None, default_passes: bool, reference: str = "fp32") -> str:
    """What is used and why, in one sentence.

    default_passes: the plain gates accept the file as exported.  reference: whose answers are kept, by name.
    """
    first, counted = steps[0], partial(_numbers, reference=reference)
    exported = first.name == "default"  # else of a file from elsewhere: the int8 file that the search began with
    name = "The file as exported" if exported else f"The int8 file ({first.what})"
    if chosen is None and first.passed:
        return f"{name} is good enough: {counted(first)} on {_images(first)}."
    if chosen is None and default_passes:
        return f"{name} is kept: {counted(first)} on {_images(first)}; no step does better ({'; '.join(first.why)})."
    if chosen is not None:
        step = chosen.step
        slower = step.time_over_fp32 is not None and step.time_over_fp32 > 1
        speed = f", but it takes {step.time_over_fp32:.2f} times as long as fp32 here" if slower else ""
        unsure = "" if chosen.certain else f"; uncertain: {'; '.join(step.why)}"
        default = f"where {'the default' if exported else first.what} has {counted(first)}"
        return f"Step '{step.name}' ({step.what}) is used: {counted(step)}, {default}{speed}{unsure}."
    measured = [step for step in steps if step.measures]
    best = max(measured, key=lambda step: (score(step.measures), step.measures.get("sqnr_db", 0.0)))  # few images tie
    return (
        f"No int8 step reached the aim on the {_images(best)}: the best, '{best.name}', has {counted(best)} "
        f"({'; '.join(best.why)})."
    )


def score(measures: Measures) -> float:
    """The measure that the gates judge: agreement, where it can be estimated what new images give, or the cosine
    similarity of features."""
    if "agreement" not in measures:
        return 1 - float(measures["distance"])
    return float(promised(measures)["agreement"])


def told(measures: Measures, why: Sequence[str]) -> str:
    """A step for the terminal; its agreement is told once: some reasons begin with it."""
    counted = "agreement" in measures and not any(line.startswith("agreement") for line in why)
    agreement = f"agreement {score(measures):.4f}, " if counted else ""
    return f"{agreement}{measures['sqnr_db']:.1f} dB, {'; '.join(why) or 'good enough'}"


def _images(step: Step) -> str:
    return plural(int(n), "selection image") if (n := step.measures.get("n")) else "selection images"


def _numbers(step: Step, reference: str) -> str:
    if "agreement" in step.measures:
        return f"{100 * step.measures['agreement']:.1f} % of the answers of {reference}"
    return f"{step.measures['sqnr_db']:.0f} dB"
