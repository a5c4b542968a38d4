"""What a format offers to choose among: the ways to quantize one network, for the export and the int8 search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from softedge.eval.measures import Float32
from softedge.records import Artifact

if TYPE_CHECKING:
    from softedge.data.images import Uint8
    from softedge.export.deployed import Deployed


@dataclass(frozen=True)
class Option:
    """One way to quantize a network.

    what: what was done, in words.  model: in the format's own terms; only the format looks inside.
    tier: options of a higher tier compute more in float, so that one must be clearly nearer to fp32 to be preferred.
    details: what was decided while it was made (JSON values); written into the file.
    """

    what: str
    model: Any
    tier: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rounding:
    """An activation that an option rounds to 8 bits: its range, and its float values (1, C, ...) on one image."""

    name: str
    low: float
    high: float
    values: Float32


class Candidates(ABC):
    """The int8 candidates of one network in one format, for the export and the search (``quantize.search``) to choose.

    Made by ``Format.candidates``; cheap to make, the work is done when it is asked for.  Methods that are not abstract
    are optional: what they return by default says "this format cannot".
    """

    most_images: ClassVar[int] = 768
    """Images that options are judged on, at most; fewer where the runtime is slow."""
    fewest: ClassVar[int] = 1
    """Calibrations that are compared at least, however near another format's integers are to fp32."""

    @abstractmethod
    def calibrations(self) -> Iterator[Option]:
        """Every way to quantize the whole network that is worth a look; made lazily, one at a time."""

    def told(self, option: Option, decibels: float) -> None:
        """What an option of ``calibrations`` was measured at, before the next is made: that one can build on it."""
        return

    @abstractmethod
    def comparison(self) -> Uint8:
        """The calibration images (N, S, S, 3) on which the export compares the calibrations."""

    @abstractmethod
    def predict(self, option: Option, images: Uint8) -> Float32:
        """Outputs (N, C) of an option for uint8 (N, S, S, 3), as its file would answer."""

    @abstractmethod
    def write(self, option: Option, out: Path) -> Path:
        """Write an option into the existing folder ``out`` like an export; the path of its main file."""

    def layers(self) -> Sequence[str]:
        """Names of the layers with weights, in order of computation; empty when none can be kept in float."""
        return ()

    def float_layers(self, option: Option) -> frozenset[str]:
        """Which of ``layers`` the option computes in float."""
        return frozenset()

    def with_float(self, option: Option, layers: Sequence[str]) -> Option | None:
        """``option`` with these layers computed in float as well."""
        return None

    def alone(self, option: Option, layer: str) -> Option | None:
        """``option`` with this layer in 8 bits and all others in float, to learn what the layer costs."""
        return self.with_float(option, [name for name in self.layers() if name != layer])

    def describe(self, option: Option, layer: str) -> dict[str, Any]:
        """What the report shows of a layer: ``weight`` (its name), ``shape``, ``low`` and ``high`` of its input,
        ``widest`` of its weights."""
        return {}

    def proxy(self) -> Candidates | None:
        """Candidates of another format with the same layers in the same order, where those are faster to rank."""
        return None

    def bias_corrected(self, option: Option) -> Option | None:
        """``option`` with biases corrected for the mean error of each layer."""
        return None

    def roundings(self, option: Option, image: Uint8) -> Sequence[Rounding]:
        """Every activation that ``option`` rounds, on one image (1, S, S, 3): what fine-tuning simulates."""
        return ()

    def reweighted(self, option: Option, network: Deployed, ranges: Mapping[str, tuple[float, float]]) -> Option | None:
        """``option`` with the weights of ``network``, and other ranges of the tensors named there."""
        return None

    def rounded(self, option: Option, images: Uint8) -> Option | None:
        """``option`` with each layer's weights rounded for the least error of its output on calibration images, where a
        format can do that without PyTorch's network; None: the network's are rounded (``largest_weight``,
        ``reweighted``)."""
        return None

    def largest_weight(self, option: Option) -> int | None:
        """The largest integer of its weights, per output channel: 127, or 63 in 7 bits; None: they have other grids."""
        return None

    def from_file(self, artifact: Artifact) -> Option | None:
        """An int8 file of the same network, of this or another format, as an option; None when it cannot be read."""
        return None

    def leaner(self, option: Option) -> Iterator[Option]:
        """The integers of another format's file, made again with what is fast in this format in integers and in float,
        the fastest first; none where it would be the same."""
        return iter(())

    def weights_only(self) -> Option | None:
        """8-bit weights, float arithmetic: where nothing else holds."""
        return None

    def time_over_fp32(self, option: Option) -> float | None:
        """Processor time of one image over that of the float model, one thread; None where it is not measured."""
        return None
