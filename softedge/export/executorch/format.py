"""ExecuTorch programs (.pte) for XNNPACK, the CPU backend on Android and iOS: fp32, and int8 by pt2e quantization.

An optional extra, because it brings its own compiler: pip install 'softedge[executorch]'.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from softedge.errors import UserError, first_line
from softedge.export.base import Float32, Format, Predictor, Uint8, needs
from softedge.export.contract import artifact_of
from softedge.export.executorch.board_runtime import LIBRARIES
from softedge.export.executorch.quantizer import quantizer
from softedge.export.nearest import write_nearest
from softedge.export.quiet import quiet
from softedge.progress import track
from softedge.records import Artifact, Precision
from softedge.run import write_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from softedge.export.candidates import Candidates
    from softedge.export.deployed import Deployed

_CHATTER = ("[cpuinfo_utils.cpp", "[threadpool.cpp")  # begins lines that are printed without any error


class ExecuTorch(Format):
    """A program holds one image, and memory planned for it."""

    name = "executorch"
    title = "ExecuTorch"
    suffix = ".pte"
    precisions: ClassVar[Mapping[str, Precision]] = {"fp32": Precision(32, 32), "int8": Precision(8, 8)}
    packages = ("executorch", "torchao")
    board_packages: ClassVar[Mapping[str, str]] = {"executorch.extension.pybindings.portable_lib": "executorch"}
    board_parts = tuple(f"executorch/lib/libexecutorch{name}.so" for name in LIBRARIES)

    def board_source(self) -> tuple[Path, tuple[str, ...]]:
        """Softedge's own library: unlike the Python bindings it needs no PyTorch on the board."""
        include = "{wheel}/executorch/include"
        flags = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-DC10_USING_CUSTOM_GENERATED_MACROS", f"-I{include}"]
        flags += [f"-I{include}/executorch/runtime/core/portable_type/c10", "-L{wheel}/executorch/lib"]
        flags.append("-Wl,--no-as-needed")  # those with the kernels are wanted too: they announce themselves
        return Path(__file__).with_name("native.cpp"), (*flags, *(f"-lexecutorch{name}" for name in LIBRARIES))

    def missing(self) -> str | None:
        return needs("exporting to ExecuTorch", "executorch", "torchao", extra="executorch")

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        bits = self.bits(precision)
        if bits.is_int8 and not len(calibration):
            raise UserError("int8 needs calibration images, found none; give some, or leave int8 out of --precisions")
        if (candidates := self.candidates(deployed, precision, calibration)) is not None:
            path = write_nearest(candidates, deployed, calibration, out)
        else:
            path = out / f"model{self.suffix}"
            write_bytes(path, _lower(deployed))
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.executorch.candidates import ExecuTorchCandidates

        return ExecuTorchCandidates(deployed, calibration, _lower, load_model) if self.bits(precision).is_int8 else None

    def runtime(self) -> str:
        return f"executorch {version('executorch')} (XNNPACK)"

    def load(self, artifact: Artifact) -> Predictor:
        return load_model(artifact.path)


def _lower(deployed: Deployed, calibration: Uint8 | None = None, in_float: int = 0) -> bytes:
    """Trace, quantize where there are calibration images, and hand every operator that XNNPACK has to it.

    in_float: how many of the first layers stay in float.
    """
    import torch

    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    folded = _cast_first(deployed.folded())
    example = (torch.zeros((1, deployed.spec.size, deployed.spec.size, 3), dtype=torch.uint8),)
    if calibration is not None:
        folded = _quantize(folded, example, calibration, in_float)
    with quiet(), torch.no_grad():
        program = torch.export.export(folded, example, strict=True)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(edge.to_executorch().buffer)


def _cast_first(network: Deployed) -> nn.Module:
    """The same function for a program: the cast is ExecuTorch's own work, and XNNPACK turns the floats into planes.

    Turned as bytes, it goes through two more of ExecuTorch's operators: 0.2 of 4.8 ms (EfficientNet-Lite0, int8).
    """
    import torch

    class CastFirst(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network.from_planes(image.to(torch.float32).permute(0, 3, 1, 2))

    return CastFirst().eval()


def _quantize(model: nn.Module, example: tuple[torch.Tensor], calibration: Uint8, in_float: int) -> Any:
    """pt2e with XNNPACK's symmetric per-channel weights and asymmetric activations."""
    import torch

    with quiet(), torch.no_grad():
        from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            convert_pt2e,
            prepare_pt2e,
        )

        prepared = prepare_pt2e(torch.export.export(model, example, strict=True).module(), quantizer(in_float))
    for image in track(calibration, "calibrating"):
        with quiet(), torch.no_grad():
            prepared(torch.from_numpy(image[None]))
    with quiet(), torch.no_grad():
        return convert_pt2e(prepared)


def load_model(path: Path) -> Predictor:
    """Run a program with ExecuTorch's own runtime."""
    if (why := needs("running an ExecuTorch file", "executorch", extra="executorch")) is not None:
        raise UserError(why)
    with quiet() as said:
        import torch
        from executorch.extension.pybindings.portable_lib import _load_for_executorch

        try:
            program = _load_for_executorch(str(path))
        except Exception as error:  # the runtime raises RuntimeError with an error code
            raise UserError(f"{path} cannot be loaded by ExecuTorch ({_explained(error, said.getvalue())})") from error

    def predict(images: Uint8) -> Float32:
        with quiet() as said:  # the first image starts the threads, with lines about the processor
            try:
                rows = [
                    program.forward([torch.from_numpy(images[i : i + 1])])[0].numpy().copy() for i in range(len(images))
                ]
            except Exception as error:
                raise RuntimeError(f"ExecuTorch: {_explained(error, said.getvalue())}") from error
        return np.concatenate(rows).astype(np.float32)

    return predict


def _explained(error: Exception, said: str) -> str:
    """An exception of the runtime, a mere code, with the lines that it printed about it."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(_CHATTER)]
    return ": ".join([first_line(error), *(["; ".join(lines)] if lines else [])])
