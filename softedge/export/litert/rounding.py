"""The weights of a LiteRT file rounded so that each layer's output changes least: ``export.rounding`` on a float file.

What layers read is measured in LiteRT's own environment (``rounding_worker.py``); the weights are rounded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softedge.export.litert.environment import work
from softedge.export.rounding import POSITIONS, WIDEST, least_error
from softedge.files import temporary_folder, write_json
from softedge.progress import track

WORKER = Path(__file__).with_name("rounding_worker.py")


def rounded(file: Path, inputs: NDArray[Any], out: Path) -> bool:
    """Write a float file with each layer's weights on ai-edge-quantizer's grid of 8 bits, 127 steps to the largest of
    each output channel, for the least error of its output, and its bias such that the mean of each channel stays.

    Each on what it reads in the float file.  On what the rounded layers before it give, an EfficientNet-Lite0 was not
    clearly nearer to fp32, and took three times as long.  Weights that several operators read, or that are no float32
    constant, stay as they are; False where nothing else is there.  inputs: (N, ...), each image as ``file`` takes it.
    """
    with temporary_folder("litert") as folder:
        np.save(folder / "inputs.npy", inputs)
        weights = _weights(file, folder)
        changes: dict[str, NDArray[np.float32]] = {}
        for places in groups(weights):
            found = _moments(file, folder, places)
            for place in track(places, "rounding weights"):
                weight = weights[place]
                coded = least_error(weight, found[f"second.{place}"])
                more = (weight - coded) @ found[f"mean.{place}"]
                changes[f"weight.{place}"] = coded.numpy()
                if more.isfinite().all():  # not where a layer reads what was padded for a maximum
                    changes[f"more.{place}"] = more.flatten().numpy()
        if changes:
            np.savez(folder / "changes.npz", **changes)  # type: ignore[arg-type]
            work("repack", file, folder / "changes.npz", out, script=WORKER)
        return bool(changes)


def groups(weights: Mapping[int, Tensor]) -> list[list[int]]:
    """The places of layers, in order, that are measured together: at most ``WIDEST`` numbers of second moments."""
    parted: list[list[int]] = []
    room = 0
    for place, weight in weights.items():
        if (size := numbers(weight)) > room:
            parted.append([])
            room = WIDEST
        parted[-1].append(place)
        room -= size
    return parted


def numbers(weight: Tensor) -> int:
    """Of the second moments of what (G, O / G, K) are multiplied with."""
    return int(weight.shape[0] * weight.shape[2] ** 2)


def _weights(file: Path, folder: Path) -> dict[int, Tensor]:
    """(G, O / G, K) by the layer's place among the operators, without those whose second moments are too large."""
    work("unpack", file, folder / "weights.npz", script=WORKER)
    with np.load(folder / "weights.npz") as stored:
        every = {int(place): torch.from_numpy(stored[place]) for place in stored}
    return {place: weight for place, weight in sorted(every.items()) if numbers(weight) <= WIDEST}


def _moments(file: Path, folder: Path, places: Sequence[int]) -> dict[str, Tensor]:
    """Of what layers read: see ``rounding_worker.measure``."""
    write_json(folder / "asked.json", {"layers": places, "positions": POSITIONS})
    work("measure", file, folder / "inputs.npy", folder / "asked.json", folder / "moments.npz", script=WORKER)
    with np.load(folder / "moments.npz") as found:
        return {name: torch.from_numpy(found[name]) for name in found}
