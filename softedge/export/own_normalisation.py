"""What a network does with the values of its image before its first convolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_OF_LEVELS = 1 / 32  # largest factor of a network that takes 0..255: 1 / 57 at ImageNet's smallest deviation
_OF_SHARES = (1.0, 10.0)  # factors of one that takes 0..1: 1 / 0.225; 1 where the next layer's weights hold it
_MIDDLE = (0.2, 0.7)  # of 0..1, what becomes 0: the mean of photos


@dataclass(frozen=True)
class Normalisation:
    """The image x becomes factor · x + shift, per channel or one for all."""

    factor: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def then(self, kind: str, constant: NDArray[Any]) -> Self:
        """With one more operator behind it.  kind: "add", "sub", "mul" or "div", by ``constant``."""
        c = constant.reshape(-1).astype(np.float64)
        if kind in ("mul", "div"):
            a = c if kind == "mul" else 1 / np.where(c == 0, np.inf, c)
            return type(self)(self.factor * a, self.shift * a)
        return type(self)(self.factor, self.shift + (c if kind == "add" else -c))

    def white(self) -> float | None:
        """The largest value that the image has, 255 or 1, where this normalises it; None where it does not, or in
        another way."""
        size = np.abs(self.factor)
        middle = -self.shift / np.where(self.factor == 0, 1, self.factor)
        low, high = _MIDDLE
        if size.min() > 0 and (size.max() <= _OF_LEVELS or (255 * low <= middle.min() and middle.max() <= 255 * high)):
            return 255.0
        shares = _OF_SHARES[0] <= size.min() and size.max() <= _OF_SHARES[1]
        return 1.0 if shares and low <= middle.min() and middle.max() <= high else None
