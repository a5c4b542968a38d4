"""What a plan is made from: how many images there are, and how long one takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softedge.eval.validation import few_counts

MEASURED_AT = 128  # pixels; the time of other sizes goes with their area
FORWARD = 0.35  # of a training step, from EfficientNet-Lite0 and MobileNetV3 on two cores


@dataclass(frozen=True)
class Counts:
    """What the data stage found.  longer_side: pixels of the largest image.  grey: nearly all images are.

    few: the labels are too few for a validation part (``eval.validation.few_counts``).  views: that pretraining takes
    of an image.  scratch: labels alone are trained on for comparison.  spread: labels spread over features, where most
    images have none.  beside: networks that give features besides, and what an image costs each, the run's own = 1.
    spread_at: pixels of their images.  words: visual words stand beside them.  exported: what the files cost
    (``export_minutes``), those of the default = 1.
    """

    pretrain: int
    train: int
    test: int
    longer_side: int
    grey: bool = False
    few: bool = False
    views: int = 2
    scratch: bool = False
    spread: bool = True
    beside: tuple[tuple[str, float], ...] = ()
    spread_at: int = 224
    words: bool = True
    exported: float = 1.0

    @property
    def taught(self) -> int:
        """Images of an epoch of distillation; 0 where it is left out (``stages.teachers.mostly_unlabelled``)."""
        return self.pretrain if self.pretrain >= 2 * self.train > 0 else 0

    @property
    def tuned(self) -> int:
        """Images of an epoch of fine-tuning; 0 where it is left out."""
        return 0 if self.few and self.taught else self.train


@dataclass(frozen=True)
class Pace:
    """seconds: an image takes in a training step at ``MEASURED_AT`` pixels; other sizes go with their area.

    threads: it was measured with, where that is every core and not one less.  Smaller sizes may be trained with one
    less (``eval.pace.large_layers``), and are counted so.
    """

    seconds: float
    threads: int = 0

    def at(self, size: int) -> float:
        fewer = self.threads / (self.threads - 1) if self.threads > 1 and size < MEASURED_AT else 1.0
        return self.seconds * (size / MEASURED_AT) ** 2 * fewer


def minutes_of(seconds: float) -> float:
    return seconds / 60


def counted(facts: dict[str, Any]) -> Counts:
    """The counts that matter, from ``data.describe``."""
    few = few_counts((facts.get("per_class") or {}).get("train", {}).values())
    return Counts(facts["n_pretrain"], facts["n_train"], facts["n_test"], facts["longer_side"], facts["grey"], few)
