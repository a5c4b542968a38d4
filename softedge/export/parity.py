"""Does the file on disk compute what PyTorch computes? And where not, from which layer on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softedge.eval import measures
from softedge.export.base import Float32, Predictor, Uint8
from softedge.export.tolerance import HALF_NOISE_DB, Tolerance
from softedge.records import LABELLED, Output

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed

_HUNDRED = 100  # images, of which one may be far
Layers = Callable[[Uint8], Iterable[tuple[str, Float32]]]


@dataclass(frozen=True)
class Parity:
    """max_abs_diff: of a probability or score; of a feature relative to the largest.  The rest: see ``measures``."""

    max_abs_diff: float
    agreement: float
    sqnr_db: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(actual: Float32, reference: Float32, output: Output = "probabilities") -> Parity:
    """Compare outputs (N, C) with the reference's; NaN anywhere counts as an infinite difference."""
    largest = difference(actual, reference, output)
    noise = measures.median_sqnr_db(reference, actual, output)
    return Parity(largest, measures.agreement(reference, actual, output), noise, len(actual))


def difference(actual: Float32, reference: Float32, output: Output = "probabilities") -> float:
    """Largest absolute difference; for features relative to the largest reference feature."""
    gap = np.abs(actual.astype(np.float64) - reference)
    largest = float(gap.max()) if np.isfinite(gap).all() else float("inf")
    return largest if output in LABELLED else largest / max(float(np.abs(reference).max()), 1e-12)


def refusal(found: Mapping[str, float], precision: str, output: str, allowed: Tolerance) -> str:
    """Why a float file is too far from PyTorch, by ``measures.compare`` and ``measures.farthest``; "" where it is not.

    fp32: no image may be.  fp16: at most one in a hundred, of fewer images one, and only with the noise that rounding
    leaves: its two best classes nearly tie.  An overflow leaves more, also where its outputs are finite.
    """
    if not math.isfinite(found["max_abs_diff"]):
        return "some outputs are no finite numbers"
    noise = found.get("far_sqnr_db", HALF_NOISE_DB)  # checks of earlier versions did not measure it
    if allowed.sqnr_db is not None:
        most = found["p1_sqnr_db"]
        if most < allowed.sqnr_db:
            return f"SQNR {most:.1f} dB of features is below {allowed.sqnr_db:g} dB"
        return _too_noisy(noise) if noise < allowed.sqnr_db else ""
    measure = "p99_abs_diff" if precision == "fp16" else "max_abs_diff"
    if output == "features":
        measure = "relative_diff"
    if allowed.parity is None or found["max_abs_diff" if precision == "fp16" else measure] <= allowed.parity:
        return ""
    few = measure == "p99_abs_diff" and found["n"] < _HUNDRED and "far_sqnr_db" in found
    spared = found["next_abs_diff"] if few else found[measure]
    if spared > allowed.parity:
        return f"{measure} {found[measure]:.2g} is above the tolerance {allowed.parity:g}"
    return _too_noisy(noise) if noise < HALF_NOISE_DB else ""


def _too_noisy(decibels: float) -> str:
    return f"SQNR {decibels:.1f} dB of one image is below {HALF_NOISE_DB:g} dB: more than half precision rounds off"


def one_by_one(predict: Predictor, images: Uint8) -> Float32:
    """Outputs (N, C) for images (N, H, W, 3), each run alone."""
    return np.concatenate([predict(images[index : index + 1]) for index in range(len(images))])


def first_departure(deployed: Deployed, layers: Layers, images: Uint8, limit: float) -> str | None:
    """Name the first convolution or linear layer whose output departs from PyTorch by more than ``limit``, relatively.

    layers: yields (module name, output) in the order of computation, from the artifact.
    """
    wanted = reference_layers(deployed, images)
    for name, output in layers(images):
        reference = wanted.get(name)
        if reference is None or reference.size != output.size:
            continue
        gap = float(np.linalg.norm(output.reshape(-1) - reference.reshape(-1)) / (np.linalg.norm(reference) + 1e-12))
        if not gap <= limit:
            return f"{name} (relative difference {gap:.2g})"
    return None


def reference_layers(deployed: Deployed, images: Uint8) -> dict[str, Float32]:
    """Outputs of every convolution and linear layer of the folded network in PyTorch, by module name."""
    import torch

    folded, outputs = deployed.folded(), {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            outputs[name] = output.detach().clone().numpy()  # an activation in place would overwrite a view

        return hook

    for name, module in folded.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(keep(name))
    with torch.inference_mode():
        folded(torch.from_numpy(images))
    return outputs
