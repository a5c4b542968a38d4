"""What the doctor can do about a refused OpenVINO file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softedge.data.images import Uint8
from softedge.eval.measures import Float32
from softedge.export.deployed import Deployed
from softedge.export.openvino.format import OpenVino
from softedge.export.openvino.int8 import candidates, compressed, from_onnx_int8, with_float, with_ranges
from softedge.export.openvino.network import from_onnx, predictor, write
from softedge.export.quiet import quiet


class OpenVinoForm:
    """See ``int8_formats.Format``.  onnx: an int8 ONNX file of the network that the gates accept, where there is one.

    safe: 7-bit weights, as the file was exported.
    """

    name = "OpenVINO"
    target = OpenVino.name

    def __init__(self, deployed: Deployed, calibration: Uint8, onnx: Path | None = None, safe: bool = False):
        self.deployed, self.calibration, self.onnx, self.safe = deployed, calibration, onnx, safe

    def others(self) -> Iterator[tuple[str, str, Any]]:
        network = from_onnx(self.deployed)
        options = candidates(network, self.calibration, self.safe)
        while True:  # each is made only when the one before was refused
            with quiet():
                option = next(options, None)
                if option is None:
                    break
                what, model = option[0], compressed(option[1])
            yield "calibrated", f"calibration by {what}; biases corrected fast", model
        with quiet():
            model = compressed(with_ranges(network, self.calibration, "minmax", self.safe, fast=False))
        yield "calibrated", "calibration by minmax; biases corrected layer by layer", model
        if self.onnx is not None:
            with quiet():
                made = from_onnx_int8(self.onnx)
            yield "onnx", f"the integers of {self.onnx.parent.name}", made

    def with_float(self, model: Any, layers: Sequence[str]) -> Any:
        return with_float(model, layers)

    def weights(self) -> Any:
        with quiet():
            return compressed(from_onnx(self.deployed))

    def predict(self, model: Any, images: Uint8) -> Float32:
        return predictor(model)(images)

    def save(self, model: Any, folder: Path) -> Path:
        path = folder / f"model{OpenVino.suffix}"
        with quiet():
            write(model, self.deployed, "int8", path)
        return path
