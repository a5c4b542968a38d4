"""What ``planning`` decides: the plan of a deployment, and how a terminal shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from softedge.progress import on_one_line, plural
from softedge.stages.fitting import Fit

_OVER = 1.1  # times the minutes asked for, above which a plan says that it takes longer


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the plan."""

    stage: str
    what: str
    minutes: float


@dataclass(frozen=True)
class Plan:
    """values: of the recipe, "section.key" -> value.  seconds_per_image: of a training step at 128 pixels."""

    network: str
    weights: str
    size: int
    minutes: float  # the budget
    seconds_per_image: float
    steps: tuple[PlannedStage, ...]
    values: dict[str, Any]
    notes: tuple[str, ...] = field(default_factory=tuple)
    fits: tuple[Fit, ...] = ()  # what was measured on the device, where it set a limit
    few_pixels: str = ""  # a clause where minutes are why they are few; the report has it as a caution
    more_minutes: int | None = None  # from which there are more pixels, or all epochs; 0: neither; None: not known

    @property
    def total(self) -> float:
        """Expected minutes."""
        return sum(step.minutes for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": round(self.total, 1)}

    def _time(self) -> str:
        # "2 of 2 minutes" would hide that 2.3 are more than 2
        hidden = round(self.total) <= self.minutes < self.total / _OVER
        exact = self.total < 1 or hidden
        needed, asked = f"{self.total:.1f}" if exact else f"{self.total:.0f}", f"{self.minutes:g}"
        if float(needed) <= self.minutes:
            return f"about {needed} of {plural(self.minutes, 'minute', written='{:g}'.format)} on this machine"
        unit, were = ("minute" if needed == "1" else "minutes"), ("was" if asked == "1" else "were")
        return f"about {needed} {unit} on this machine, {asked} {were} asked for"

    def text(self) -> str:
        """For a terminal."""
        start = {"package": "ImageNet weights (package)", "imagenet": "ImageNet weights (timm)"}
        lines = [
            f"plan: {self.network} at {self.size} pixels from {start.get(self.weights, f'{self.weights} weights')}, "
            + self._time()
        ]
        lines += [f"  {step.stage:<10} {step.minutes:5.1f} min  {step.what}" for step in self.steps]
        for fit in sorted(self.fits, key=lambda fit: (fit.network, fit.size)):
            lines.append(f"  the device: {fit.network} takes {fit.text()}{', meets the limits' if fit.met else ''}")
        notes = [*self.notes, *filter(None, [self.few_pixels])]
        return "\n".join(map(on_one_line, [*lines, *(f"  note: {note}" for note in notes)]))
