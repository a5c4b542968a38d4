"""A format and a device that softedge does not know, and a network small enough for both: what an extension is made of.

The network is a convolution, a ReLU, the mean over all places and a linear layer.  The format is two files, a JSON file
and its weights; NumPy computes it.  int8 stores the weights rounded.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from timm.models import register_model
from torch import Tensor, nn

from softedge.bench.base import FolderDevice, Measurement, TimingPlan
from softedge.errors import UserError
from softedge.export.base import Float32, Format, Predictor, Uint8
from softedge.export.contract import artifact_of
from softedge.export.deployed import Deployed
from softedge.records import Artifact, Precision
from softedge.run import atomic_path, write_json


class ToyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv1(images).relu().mean((2, 3))


@register_model
def resnet_toy(**options: Any) -> ToyNet:
    del options
    return ToyNet()


class Toy(Format):
    """``model.toy`` says what is computed, ``weights.npz`` beside it holds the numbers."""

    name = "toy"
    title = "Toy format"
    suffix = ".toy"
    precisions: ClassVar[Mapping[str, Precision]] = {"fp32": Precision(32, 32), "int8": Precision(8, 32)}
    packages = ("numpy",)

    def missing(self) -> str | None:
        return None

    def convert(self, deployed: Deployed, precision: str, calibration: Uint8, out: Path) -> Artifact:
        net = deployed.model.backbone.net if deployed.output == "probabilities" else None
        if not isinstance(net, ToyNet):
            raise UserError("the toy format can express a classifier on resnet_toy alone")
        layers = {"conv": net.conv1, "linear": deployed.model.head}
        arrays: dict[str, np.ndarray] = {"shift": deployed.shift.numpy(), "scale": deployed.scale.numpy()}
        for name, layer in layers.items():
            weight, step = layer.weight.detach().numpy(), np.float32(1)
            if self.bits(precision).is_int8:
                step = np.float32(np.abs(weight).max() / 127)
                weight = np.round(weight / step).astype(np.int8)
            arrays |= {f"{name}.weight": weight, f"{name}.step": step, f"{name}.bias": layer.bias.detach().numpy()}
        path = out / f"model{self.suffix}"
        with atomic_path(self.files(path)[1]) as temporary:
            np.savez(temporary, **arrays)
        write_json(path, {"stride": net.conv1.stride[0], "labels": list(deployed.labels)})
        return artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_name("weights.npz")]

    def load(self, artifact: Artifact) -> Predictor:
        runtime = toy_runtime(artifact.path)

        def predict(images: Uint8) -> Float32:
            return np.concatenate([runtime.infer(image[None]) for image in images])

        return predict

    def runtime(self) -> str:
        return f"NumPy {np.__version__}"

    def integer_operations(self, artifact: Artifact) -> dict[str, int]:
        kind = "weights" if artifact.is_int8 else "float"
        return {f"conv_{kind}": 1, f"linear_{kind}": 1}

    def board_runtime(self) -> Path:
        return Path(__file__).with_name("toy_board_runtime.py")


def toy_runtime(path: Path) -> Any:
    """What travels to devices, used here as well."""
    spec = importlib.util.spec_from_file_location("toy_board_runtime", Toy().board_runtime())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Runtime(str(path), {})


class Abacus(FolderDevice):
    """Runs toy files in this process, with none of softedge's worker."""

    formats = ("toy",)
    called = "an abacus"

    def describe(self) -> dict[str, Any]:
        return {"name": "Abacus", "cpu": "beads"}

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        return [self._measure(artifact, json.loads(artifact.path.read_text()), plan) for artifact in artifacts]

    def _measure(self, artifact: Artifact, about: dict[str, Any], plan: TimingPlan) -> Measurement:
        assert about["labels"] == list(artifact.labels)
        runtime, images = toy_runtime(artifact.path), np.load(plan.images)
        outputs, samples = [], []
        for image in images:
            begun = time.perf_counter()
            outputs.append(runtime.infer(image[None]))
            samples.append((time.perf_counter() - begun) * 1000)
        return Measurement(
            artifact.name,
            artifact.sha256,
            samples_ms=samples,
            rounds=[0] * len(samples),
            load_ms=runtime.load_ms,
            first_ms=samples[0],
            outputs=np.concatenate(outputs),
            runtime=f"NumPy {np.__version__}",
        )
