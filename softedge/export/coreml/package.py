"""A Core ML package in memory: made from the network, its weights put into 8 bits, described and written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.errors import UserError
from softedge.export.contract import to_json
from softedge.export.coreml.reproducible import make_reproducible
from softedge.export.deployed import Deployed
from softedge.files import libraries_inside, refuse_full, temporary_folder

LABEL = "label"
WEIGHT_THRESHOLD = 512  # coremltools' default of 2048 values leaves squeeze-excite layers in float

_AFTER_REWRITING = (
    "int_op_canonicalization",
    "nullify_redundant_quantization_zero_point",
    "dequantize_quantize_pair_elimination",
    "distributive_quantized_binary_op_scale_normalization",
    "dequantize_to_constexpr",
    "const_elimination",
    "const_deduplication",
    "remove_redundant_ops",
    "dedup_op_and_var_names",
    "topological_reorder",
    "dead_code_elimination",
)


def write(package: Any, deployed: Deployed, path: Path, weights: bool, **about: Any) -> None:
    """Describe a package like every export and write it.  weights: store them in 8 bits.  about: more metadata."""
    package = in_8_bits(package) if weights else package
    _save(_named(package, deployed, about), path)


@libraries_inside()
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
        options["outputs"] = [ct.TensorType(name=deployed.output, dtype=np.float32)]
    oldest = {"int8": ct.target.iOS16, "w8a8": ct.target.iOS17}.get(precision, ct.target.iOS15)
    _take_arrays_of_one_for_numbers()
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
    except OSError:  # a full disk is not the network's fault
        raise
    except Exception as error:  # coremltools raises many kinds for operators that it cannot express
        refuse_full(Path(tempfile.gettempdir()))  # which it reports like one of those
        raise UserError(f"Core ML cannot express this network: {' '.join(str(error).split())[:300]}") from error


def _take_arrays_of_one_for_numbers() -> None:
    """Let coremltools 9 convert the padding of timm's tf_* networks with NumPy 2.4 and newer.

    Its ``_cast`` calls ``int`` on constants of shape (1,), which NumPy refuses since 2.4. Everything else is its own.
    """
    from coremltools.converters.mil.frontend.torch import ops

    if hasattr(ops._cast, "original"):
        return
    original = ops._cast

    def cast(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        value = ops._get_inputs(context, node, expected=1)[0]
        if value.can_be_folded_to_const() and np.ndim(value.val) > 0 and np.size(value.val) == 1:
            context.add(ops.mb.const(val=dtype(np.asarray(value.val).item()), name=node.name))
        else:
            original(context, node, dtype, dtype_name)

    cast.original = original  # type: ignore[attr-defined]
    ops._cast = cast


class _Planar(nn.Module):
    def __init__(self, deployed: Deployed):
        super().__init__()
        self.deployed = deployed

    def forward(self, image: Tensor) -> Tensor:
        return self.deployed.from_planes(image)


def in_8_bits(package: Any) -> Any:
    """The package with 8-bit weights per output channel."""
    import coremltools.optimize.coreml as optimize
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    weights = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=WEIGHT_THRESHOLD
    )
    config = optimize.OptimizationConfig(global_config=weights)
    rounded = PASS_REGISTRY["compression::linear_quantize_weights"]
    rounded.set_options([PassOption("config", config), PassOption("joint_compression", False)])
    return rewritten(package, [rounded])


@libraries_inside()
def rewritten(package: Any, passes: Sequence[Any]) -> Any:
    """The package with coremltools' graph passes applied to its program, one after another.

    coremltools' own functions then run a whole conversion again, about a hundred passes. The program has had them; only
    those that concern what is new in it run here, which makes a candidate several times as fast.
    """
    import coremltools as ct
    from coremltools.converters.mil.converter import mil_convert
    from coremltools.models.utils import _apply_graph_pass

    program = _apply_graph_pass(package, passes, return_pymil_prog=True)
    spec = package.get_spec()
    return mil_convert(
        program,
        convert_to="mlprogram",
        convert_from="milinternal",
        specification_version=max(spec.specificationVersion, ct.target.iOS16),
        compute_units=package.compute_unit,
        model_description=spec.description,
        skip_model_load=True,
        pass_pipeline=ct.PassPipeline([f"common::{name}" for name in _AFTER_REWRITING], "rewriting"),
    )


def metadata(path: Path) -> dict[str, str]:
    """What ``write`` put into a package besides the model, by name."""
    import coremltools as ct

    stored = ct.models.MLModel(str(path), skip_model_load=True).user_defined_metadata
    return {key.removeprefix("softedge."): value for key, value in stored.items()}


@libraries_inside()
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
    if deployed.output == "scores":  # a classifier holds its labels itself, and has one answer: these have any number
        values["labels"] = to_json(list(deployed.labels))
    named.user_defined_metadata.update({f"softedge.{key}": str(value) for key, value in values.items()})
    return named


def _save(package: Any, path: Path) -> None:
    """Write beside the place and rename: a package is a folder."""
    with temporary_folder("mlpackage", beside=path) as temporary:
        written = temporary / path.name
        package.save(str(written))
        make_reproducible(written)
        if path.exists():
            shutil.rmtree(path)
        written.rename(path)
