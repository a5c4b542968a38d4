"""ncnn networks for Arm boards and phones: fp32, fp16, and int8 with the files that ncnn's own tools would write.

An optional extra: pip install 'softedge[ncnn]' brings the runtime and pnnx, the converter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from softedge.errors import UserError
from softedge.export.base import Float32, Format, Predictor, Uint8, needs
from softedge.export.candidates import Candidates
from softedge.export.contract import artifact_of
from softedge.export.ncnn.network import FLOAT32, NO_BFLOAT, NO_HALF_ARITHMETIC, Network, weights_of
from softedge.records import Artifact, Precision
from softedge.run import atomic_path

if TYPE_CHECKING:
    from softedge.export.deployed import Deployed


class Ncnn(Format):
    """``model.param`` and its weights ``model.bin``.  A network holds one image.

    An app gives planes, as ``ncnn::Mat::from_pixels`` makes them of RGB pixels; normalisation and softmax are inside.
    The files forbid ncnn the fp16 arithmetic that it otherwise takes where the processor has it, whatever they hold: on
    arm64 it moved probabilities of an EfficientNet-Lite0 by up to 0.1.  fp16 files are stored, and keep what is between
    their layers, in fp16.  ``precision=default`` in a device's address lets it choose.
    """

    name = "ncnn"
    title = "ncnn"
    suffix = ".param"
    searchable = ("int8",)
    precisions: ClassVar[Mapping[str, Precision]] = {
        "fp32": Precision(32, 32),
        "fp16": Precision(16, 16),
        "int8": Precision(8, 8),
    }
    packages = ("ncnn", "pnnx")
    board_packages: ClassVar[Mapping[str, str]] = {"ncnn": "ncnn"}
    board_options = ("precision",)

    def missing(self) -> str | None:
        return needs("exporting to ncnn", "ncnn", "pnnx", extra="ncnn")

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        from softedge.export.ncnn.convert import converted
        from softedge.export.nearest import write_nearest

        bits = self.bits(precision)
        if bits.activations == 8 and not len(calibration):
            raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
        if (why := self.missing()) is not None:
            raise UserError(why)
        path = out / f"model{self.suffix}"
        if (candidates := self.candidates(deployed, precision, calibration)) is not None:
            path = write_nearest(candidates, deployed, calibration, out)
        else:
            half = bits.weights == 16
            with converted(deployed, half) as (network, weights):
                network.forbidding(NO_HALF_ARITHMETIC | NO_BFLOAT if half else FLOAT32).write(path)
                with atomic_path(weights_of(path)) as temporary:
                    shutil.copyfile(weights, temporary)
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.ncnn.candidates import NcnnCandidates

        return NcnnCandidates(deployed, calibration, like) if precision in self.searchable else None

    def files(self, path: Path) -> list[Path]:
        return [path, weights_of(path)]

    def load(self, artifact: Artifact) -> Predictor:
        from softedge.export.ncnn.predict import load_model

        return load_model(artifact.path, artifact.output)

    def runtime(self) -> str:
        return f"ncnn {version('ncnn')}"

    def board_settings(self, artifact: Artifact, options: Mapping[str, str]) -> dict[str, Any]:
        """``precision=default`` (or f16, bf16) in the device's address: what ncnn takes where nothing is forbidden."""
        return {"output": artifact.output, "precision": options.get("precision", "f32")}

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        from softedge.export.ncnn.counting import integer_operations

        return integer_operations(artifact.path)

    def notes(self, artifact: Artifact) -> dict[str, Any]:
        from softedge.export.ncnn.counting import calibration

        return {"calibration": text} if (text := calibration(Network.read(artifact.path))) else {}

    def integer_edges(self, artifact: Artifact) -> Mapping[str, Mapping[str, Any]]:
        """What ncnn is given: its own matrices, which no array of NumPy is."""
        made = "ncnn::Mat::from_pixels(pixels, ncnn::Mat::PIXEL_RGB, width, height)"
        return {"input": {"given_as": f"float32 planes in 0..255: {made}"}}

    def layer_outputs(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """pnnx names layers anew; they are known by their order, which is that of the trace."""
        from softedge.export.ncnn.predict import layer_outputs
        from softedge.export.parity import reference_layers

        modules = dict(deployed.folded().named_modules())
        names = list(reference_layers(deployed, images[:1]))
        try:
            pairs = list(layer_outputs(artifact.path, images[0]))
        except UserError:  # weights in an order that softedge does not know
            return
        if len(names) == len(pairs):
            for name, (weight, output) in zip(names, pairs):
                wanted = modules[name].weight.detach().numpy().reshape(-1)
                # Where pnnx folded a BatchNorm that softedge did not, the layers give different things.
                if weight.shape == wanted.shape and np.abs(weight - wanted).max() <= 1e-2 * np.abs(wanted).max():
                    yield name, output
