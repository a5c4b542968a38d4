"""The difference of two accuracies measured on the same test images, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_DRAWS = 4000


@dataclass(frozen=True)
class Difference:
    """mean: accuracy of the first minus that of the second.  low, high: its 95 % interval."""

    mean: float
    low: float
    high: float

    def metrics(self) -> dict[str, float]:
        return {"gain": self.mean, "gain_low": self.low, "gain_high": self.high}

    def __str__(self) -> str:
        """Whether the first is clearly better or worse, for a line of the terminal."""
        verdict = "clearly better" if self.low > 0 else "clearly worse" if self.high < 0 else "not clearly better"
        return f"{verdict} (95 % interval of the difference {self.low:+.3f} to {self.high:+.3f})"


def paired(first: ArrayLike, second: ArrayLike, seed: int = 0) -> Difference:
    """Paired bootstrap over images (Efron 1979).

    first, second: whether each image was answered correctly, (N,), or (seeds, N) for several trainings: images are
    drawn for all of them together.  As Agresti & Min (2005) advise, two images are added on which one of the two is
    right and the other is not: a handful of images never gives an interval of zero width.  ValueError without images.
    """
    difference = np.atleast_2d(np.asarray(first, float) - np.asarray(second, float)).mean(0)
    n = len(difference)
    if not n:
        raise ValueError("no images to compare on")
    extended = np.concatenate([difference, [1.0, -1.0]])
    rng = np.random.default_rng(seed)
    values, counts = np.unique(extended, return_counts=True)  # a draw of images is a draw of how often each value comes
    draws = rng.multinomial(n + 2, counts / (n + 2), _DRAWS) @ values / (n + 2)
    low, high = np.quantile(draws, [0.025, 0.975])
    mean = float(difference.mean())
    return Difference(mean, min(float(low), mean), max(float(high), mean))


def bits(right: Sequence[bool] | ArrayLike) -> str:
    """Right and wrong answers as text of ones and zeros, for JSON."""
    return "".join("1" if value else "0" for value in np.asarray(right, bool))


def from_bits(text: str) -> np.ndarray:
    """What ``bits`` wrote, as bool (N,)."""
    return np.frombuffer(text.encode(), np.uint8) == ord("1")
