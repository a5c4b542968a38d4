"""The dictionary of past keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """A ring of the ``size`` newest keys (He et al. 2020, arXiv 1911.05722), (size, C) of unit length.

    Only what was really enqueued counts as a negative. MoCo starts with random vectors instead: until they are
    overwritten they fill the softmax (a queue of 262,144 takes 256 symmetric steps of 512 images), pull the gradient
    towards directions that carry no image, and would be given SoftNCE's mass for neighbours. Keys of the first
    steps are real, if poor, and leave the queue at the usual pace.
    """

    def __init__(self, size: int, width: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.keys: Tensor
        self.pointer: Tensor
        self.filled: Tensor
        self.register_buffer("keys", torch.zeros(size, width, dtype=dtype))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._at, self._filled = 0, 0  # the same numbers on the host: reading a buffer would wait for the GPU

    def __len__(self) -> int:
        return self._filled

    @property
    def size(self) -> int:
        return len(self.keys)

    def negatives(self) -> Tensor:
        """The keys enqueued so far, (filled, C), in no particular order."""
        return self.keys[: self._filled]

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys with ``keys`` (N, C)."""
        if len(keys) > self.size:
            raise ValueError(f"{len(keys)} keys do not fit a queue of {self.size}")
        first = min(len(keys), self.size - self._at)
        self.keys[self._at : self._at + first] = keys[:first].to(self.keys.dtype)
        self.keys[: len(keys) - first] = keys[first:].to(self.keys.dtype)
        self._at = (self._at + len(keys)) % self.size
        self._filled = min(self.size, self._filled + len(keys))
        self.pointer.fill_(self._at)
        self.filled.fill_(self._filled)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._at, self._filled = int(self.pointer), int(self.filled)
