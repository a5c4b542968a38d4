"""How far the outputs of an exported file may be from those recorded with it, and from PyTorch's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tolerance:
    """Largest difference allowed: of a probability or score, or of a feature relative to the largest feature.

    replay: the same file elsewhere against its own outputs here.  parity: the file against PyTorch fp32; None: not
    gated here, because the loss depends on the data and ``softedge check`` judges it.  sqnr_db: instead of parity, the
    least signal-to-noise ratio of an image's features against PyTorch fp32.
    """

    replay: float
    parity: float | None
    why: str
    sqnr_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For contract.json; ``sqnr_db`` where there is one."""
        return {key: value for key, value in asdict(self).items() if key != "sqnr_db" or value is not None}


BY_PRECISION = {
    "fp32": Tolerance(
        replay=1e-4,
        parity=1e-4,
        why="logits differ by up to 1e-5 between processors and by 3e-6 between exporters (measured); "
        "a factor 10 is left for other operator orders and deeper networks",
    ),
    "fp16": Tolerance(
        replay=1e-2,
        parity=2e-2,
        why="half precision rounds every tensor to 11 bits (5e-4 relative); logits in the tens then differ by about "
        "0.02, a probability by at most half of that; accumulation order differs between processors",
    ),
    "int8": Tolerance(
        replay=5e-2,
        parity=None,
        why="integer kernels agree bit for bit between processors that do not saturate (ARM, AVX512-VNNI: measured); "
        "one rounding step in the last layers moves a probability by less than 0.05, saturation (x86 without VNNI) by "
        "more, float arithmetic on 8-bit weights by less. Against fp32 the loss depends on the data: softedge check "
        "judges it",
    ),
}

HALF_NOISE_DB = 25.0  # signal to noise that half precision leaves the worst image; see ``HALF_FEATURES``
HALF_FEATURES = Tolerance(
    replay=5e-2,
    parity=None,
    why="half-precision noise grows with depth, and features have no softmax to damp it: of an EfficientNet-Lite0 at "
    "64 pixels a feature differs by up to 0.028 of the largest, at 32 dB for the worst image and 44 dB for the median. "
    "Without one of its 33 activations it has 5.4 dB at most (measured)",
    sqnr_db=HALF_NOISE_DB,
)


def of(tolerance: Tolerance, output: str) -> Tolerance:
    """``tolerance`` of a file's format for a file with this output: fp16 features have one of their own."""
    return HALF_FEATURES if output == "features" and tolerance == BY_PRECISION["fp16"] else tolerance
