"""The doctor for OpenVINO and Core ML: other quantizations of the format, fewer integer layers, 8-bit weights alone.

The same rules as for ONNX (``int8_ladder``): chosen on unlabelled images apart, the test images only say whether to
climb on. Which layers hurt is known from the ONNX graph of the same network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from softedge.data.images import Uint8
from softedge.eval.measures import Float32, compare
from softedge.export.contract import model_files
from softedge.progress import say
from softedge.quantize.candidate import Judge
from softedge.quantize.ladder import Refuse, Rung, recommend
from softedge.quantize.sensitivity import LARGEST_SHARE, fewest
from softedge.run import size_bytes


class Format(Protocol):
    """What a format can do about a refused file. Models are the format's own, in memory."""

    name: str
    target: str

    def others(self) -> Iterator[tuple[str, str, Any]]:
        """(rung, what was done, model) for every other way to quantize all layers."""
        ...

    def with_float(self, model: Any, layers: Sequence[str]) -> Any:
        """``model`` with the layers of these names (of ONNX nodes) in float arithmetic."""
        ...

    def weights(self) -> Any:
        """8-bit weights, float arithmetic."""
        ...

    def predict(self, model: Any, images: Uint8) -> Float32:
        """Outputs (N, C) for uint8 (N, S, S, 3)."""
        ...

    def save(self, model: Any, folder: Path) -> Path:
        """Write the model into ``folder``; the path of its main file."""
        ...


@dataclass(frozen=True)
class Treatment:
    """rungs: all that were climbed.  model: the one to use; None: all are refused."""

    rungs: tuple[Rung, ...]
    model: Any
    recommendation: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "recommendation": self.recommendation,
            "passed": self.model is not None,
            "rungs": [rung.to_dict() for rung in self.rungs],
        }


class FormatLadder:
    """refuse, doubts: as for ``int8_ladder.Ladder``.  order: ONNX names of the layers, the most harmful first."""

    def __init__(
        self, form: Format, default: Rung, judges: tuple[Judge, Judge], gates: tuple[Refuse, Refuse], order: list[str]
    ):
        self.form, self.order = form, order
        self.selection, self.test = judges
        self.refuse, self.doubts = gates
        self.rungs = [default]

    def climb(self) -> Treatment:
        """All rungs until one passes."""
        best: tuple[float, Any] | None = None
        for name, what, model in self.form.others():
            apart = self._measure(model, self.selection)
            if self._rung(name, what, model, apart).passed:
                return self._done(model)
            if best is None or apart["sqnr_db"] > best[0]:
                best = float(apart["sqnr_db"]), model
        assert best is not None

        def with_float(count: int) -> Any:
            return self.form.with_float(best[1], self.order[:count])

        def suffices(count: int) -> bool:
            return not self.doubts(self._measure(with_float(count), self.selection))

        if self.order:
            count = fewest(len(self.order), suffices) or max(1, int(LARGEST_SHARE * len(self.order)))
            what, model = f"{count} of {len(self.order)} layers put in float", with_float(count)
            details = {"float_layers": count, "layers": len(self.order)}
            if self._rung("mixed", what, model, self._measure(model, self.selection), details).passed:
                return self._done(model)
        model = self.form.weights()
        apart = self._measure(model, self.selection)
        passed = self._rung("weights", "8-bit weights, float arithmetic", model, apart).passed
        return self._done(model if passed else None)

    def _measure(self, model: Any, judge: Judge) -> Mapping[str, float | int]:
        return compare(judge.fp32, self.form.predict(model, judge.images), judge.labels, judge.output)

    def _rung(
        self,
        name: str,
        what: str,
        model: Any,
        apart: Mapping[str, float | int],
        details: Mapping[str, Any] | None = None,
    ) -> Rung:
        measures = self._measure(model, self.test)
        why = [*self.refuse(measures), *(f"on {apart['n']} images apart: {line}" for line in self.refuse(apart))]
        with tempfile.TemporaryDirectory() as folder:
            size = sum(size_bytes(file) for file in model_files(self.form.save(model, Path(folder)), self.form.target))
        shown = {f"apart_{key}": apart[key] for key in ("n", "agreement", "sqnr_db") if key in apart}
        rung = Rung(name, what, measures, size, None, tuple(why), True, {**(details or {}), **shown})
        self.rungs.append(rung)
        agreement = f"agreement {measures['agreement']:.4f}, " if "agreement" in measures else ""
        say(f"{self.form.name} int8 {name}: {agreement}{measures['sqnr_db']:.1f} dB, {'; '.join(why) or 'passed'}")
        return rung

    def _done(self, model: Any) -> Treatment:
        return Treatment(tuple(self.rungs), model, recommend(self.rungs, model is not None))
