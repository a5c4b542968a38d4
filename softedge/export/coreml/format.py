"""Core ML ML Programs (.mlpackage): an image input, normalisation and softmax in the graph, labels in the classifier.

fp32   float32, iOS 15        int8   8-bit weights per channel, float16 arithmetic, iOS 16
fp16   float16, iOS 15        w8a8   8-bit weights and activations, iOS 17 (the Neural Engine's int8 path)
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.errors import UserError
from softedge.export.base import Candidates, Float32, Predictor, Uint8, needs
from softedge.export.contract import artifact_of, to_json
from softedge.export.deployed import Deployed
from softedge.export.nearest import write_nearest
from softedge.export.quiet import quiet
from softedge.records import Artifact, InputSpec

LABEL = "label"
_BATCH = 16  # images per pass of the interpreter
_WEIGHT_THRESHOLD = 512  # coremltools' default of 2048 values leaves squeeze-excite layers in float


class CoreMl:
    """Core ML, converted on any system; run by Core ML on macOS and by the reference interpreter elsewhere."""

    name = "coreml"
    precisions = ("fp32", "fp16", "int8", "w8a8")
    searchable = ("w8a8",)
    suffix = ".mlpackage"

    def __init__(self, batch: str = "one"):
        del batch  # Core ML image inputs hold one image; an app's batch is a list of them

    def missing(self) -> str | None:
        return needs("exporting to Core ML", "coremltools", extra="coreml")

    def convert(self, model: nn.Module, spec: InputSpec, precision: str, calibration: Uint8, out: Path) -> Artifact:
        """Write ``model.mlpackage`` into ``out``; see ``target.Target.convert``."""
        if (why := self.missing()) is not None:
            raise UserError(why)
        if precision not in self.precisions:
            raise UserError(f"Core ML has no precision '{precision}'; known: {', '.join(self.precisions)}")
        if precision == "w8a8" and not len(calibration):
            raise UserError(
                "Core ML w8a8 needs calibration images, found none; give images or export int8 (weights only)"
            )
        deployed = Deployed.of(model, spec)
        path = Path(out) / f"model{self.suffix}"
        with quiet():
            if (candidates := self.candidates(deployed, precision, calibration)) is not None:
                path = write_nearest(candidates, deployed, Path(out))
            else:
                write(program(deployed, precision), deployed, path, weights=precision == "int8")
        return artifact_of(path, self.name, precision, spec, deployed.labels, deployed.output)

    def candidates(
        self, deployed: Deployed, precision: str, calibration: Uint8, like: Artifact | None = None
    ) -> Candidates | None:
        from softedge.export.coreml.candidates import CoreMlCandidates

        return CoreMlCandidates(deployed, calibration, like) if precision in self.searchable else None

    def runtime(self) -> str:
        """What ``load`` computes with, for the reports."""
        if platform.system() == "Darwin":
            return f"Core ML on macOS {platform.mac_ver()[0]}"
        return "reference interpreter (reference numerics, not the Neural Engine)"

    def load(self, artifact: Artifact) -> Predictor:
        """The package read back from disk: Core ML itself on macOS, the reference interpreter elsewhere."""
        if (why := self.missing()) is not None:
            raise UserError(why)
        return _apple(artifact) if platform.system() == "Darwin" else interpreted(artifact)

    def layers(self, artifact: Artifact, images: Uint8, deployed: Deployed) -> Iterator[tuple[str, Float32]]:
        """Outputs of the convolutions and linear layers in the file, by module name, for ``parity.first_departure``.

        The converter renames what it fuses; layers are known by their order, which is that of the trace.
        """
        from softedge.export.coreml.interpreter import Program
        from softedge.export.parity import reference_layers

        found: list[Float32] = []

        def observe(kind: str, name: str, value: Tensor) -> None:
            del name
            if kind in ("conv", "linear"):
                found.append(value.float().numpy().copy())

        program = Program(artifact.path)
        program.run({program.inputs[0]: planes(images)}, observe)
        names = list(reference_layers(deployed, images))
        return iter(zip(names, found, strict=False) if len(names) == len(found) else ())


def interpreted(artifact: Artifact) -> Predictor:
    """Run the package with ``mil_interpreter`` (any system)."""
    from softedge.export.coreml.interpreter import Program

    program = Program(artifact.path)
    output = LABEL if program.labels else artifact.output
    if program.labels and program.labels != artifact.labels:
        raise UserError(
            f"{artifact.path} holds the labels {program.labels}, its contract {artifact.labels}; export again"
        )

    def predict(images: Uint8) -> np.ndarray:
        parts = []
        for start in range(0, len(images), _BATCH):
            values = program.run({program.inputs[0]: planes(images[start : start + _BATCH])})
            parts.append(probabilities(values, output))
        return np.concatenate(parts) if parts else np.empty((0, len(artifact.labels)), np.float32)

    return predict


def planes(images: Uint8) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in 0..255, which is what Core ML makes of an RGB image."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(torch.float32)


def probabilities(values: dict[str, Any], output: str) -> np.ndarray:
    """The numeric output of a program: a classifier's second output, or the features by name."""
    tensors = [value for name, value in values.items() if isinstance(value, Tensor) and name != output]
    value = values[output] if isinstance(values.get(output), Tensor) else tensors[0]
    return value.float().numpy()


def write(package: Any, deployed: Deployed, path: Path, weights: bool, **about: Any) -> None:
    """Describe a package like every export and write it.  weights: store them in 8 bits.  about: more metadata."""
    package = in_8_bits(package) if weights else package
    _save(_named(package, deployed, about), path)


def program(deployed: Deployed, precision: str) -> Any:
    """The float program of a network, for the oldest system that has what ``precision`` needs."""
    import coremltools as ct

    size = deployed.spec.size
    example = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        traced = torch.jit.trace(_Planar(deployed).eval(), example)
    options: dict[str, Any] = {}
    if deployed.output == "probabilities":
        options["classifier_config"] = ct.ClassifierConfig(list(deployed.labels), predicted_feature_name=LABEL)
    else:
        options["outputs"] = [ct.TensorType(name="features", dtype=np.float32)]
    oldest = {"int8": ct.target.iOS16, "w8a8": ct.target.iOS17}.get(precision, ct.target.iOS15)
    try:
        return ct.convert(
            traced,
            convert_to="mlprogram",
            inputs=[ct.ImageType("image", shape=tuple(example.shape), color_layout=ct.colorlayout.RGB)],
            minimum_deployment_target=oldest,
            compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
            skip_model_load=True,
            **options,
        )
    except Exception as error:  # coremltools raises many kinds for operators that it cannot express
        raise UserError(f"Core ML cannot express this network: {' '.join(str(error).split())[:300]}") from error


class _Planar(nn.Module):
    def __init__(self, deployed: Deployed):
        super().__init__()
        self.deployed = deployed

    def forward(self, image: Tensor) -> Tensor:
        return self.deployed.from_planes(image)


def in_8_bits(package: Any) -> Any:
    """The package with 8-bit weights per output channel."""
    import coremltools.optimize.coreml as optimize

    weights = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=_WEIGHT_THRESHOLD
    )
    return optimize.linear_quantize_weights(package, optimize.OptimizationConfig(global_config=weights))


def metadata(path: Path) -> dict[str, str]:
    """What ``write`` put into a package besides the model, by name."""
    import coremltools as ct

    stored = ct.models.MLModel(str(path), skip_model_load=True).user_defined_metadata
    return {key.removeprefix("softedge."): value for key, value in stored.items()}


def _named(package: Any, deployed: Deployed, about: Mapping[str, Any]) -> Any:
    """The package with its output called as the contract says and a description of its input."""
    import coremltools as ct

    spec = package.get_spec()
    if deployed.output == "probabilities":
        ct.utils.rename_feature(spec, spec.description.predictedProbabilitiesName, "probabilities")
    named = ct.models.MLModel(spec, weights_dir=package.weights_dir, skip_model_load=True)
    named.short_description = "Image classifier" if deployed.labels else "Image features"
    shape = deployed.spec
    named.input_description["image"] = (
        f"RGB image, {shape.size} x {shape.size}: shorter side resized to {shape.resize}, centre crop; "
        "scaling, mean and std are inside the model"
    )
    values = {"input": to_json(shape.to_dict()), "output": deployed.output, **deployed.about, **about}
    named.user_defined_metadata.update({f"softedge.{key}": str(value) for key, value in values.items()})
    return named


def _save(package: Any, path: Path) -> None:
    """Write beside the place and rename: a package is a folder."""
    with tempfile.TemporaryDirectory(prefix=".mlpackage-", dir=path.parent) as temporary:
        written = Path(temporary) / path.name
        package.save(str(written))
        if path.exists():
            shutil.rmtree(path)
        written.rename(path)


def _apple(artifact: Artifact) -> Predictor:
    import coremltools as ct
    from PIL import Image

    with quiet():
        model = ct.models.MLModel(str(artifact.path))

    def predict(images: Uint8) -> np.ndarray:
        rows = []
        for image in images:
            values = model.predict({"image": Image.fromarray(image)})[artifact.output]
            row = [values[label] for label in artifact.labels] if isinstance(values, dict) else np.ravel(values)
            rows.append(np.asarray(row, np.float32))
        return np.stack(rows)

    return predict
