"""A real, tiny model that names the dominant colour of an image, as exported files of every kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from softedge.bench.base import TimingPlan
from softedge.export import contract
from softedge.export.base import open_format
from softedge.records import Artifact, InputSpec

SPEC = InputSpec(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LABELS = ("red", "green", "blue")


def colour_model(path: Path, flawed: bool = False, size: int = 8) -> Path:
    """uint8 (n, size, size, 3) -> softmax of the mean per channel.  flawed: red and green are swapped."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.eye(3, dtype=np.float32)[[1, 0, 2] if flawed else [0, 1, 2]][:, :, None, None] / 25
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weights"], ["mixed"]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def export(folder: Path, target: str, precision: str, flawed: bool = False) -> Artifact:
    """An export folder with its contract."""
    folder.mkdir(parents=True)
    ready = Path(__file__).with_name(f"colour{'-int8' if precision == 'int8' else ''}{open_format(target).suffix}")
    if ready.exists():  # their converters are not among what tests need; make_colour_files.py made these
        path = folder / f"model{ready.suffix}"
        shutil.copyfile(ready, path)
    elif target == "coreml":
        path = folder / "model.mlpackage"
        path.mkdir()
        (path / "Manifest.json").write_text("{}")
    else:
        path = colour_model(folder / "model.onnx", flawed)
    if target == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(path), folder / "model.xml", compress_to_fp16=False)
        path.unlink()
        path = folder / "model.xml"
    artifact = contract.artifact_of(path, target, precision, SPEC, LABELS)
    nothing = np.zeros((1, 3), np.float32)
    contract.write(folder, artifact, contract.Golden(np.zeros((1, 8, 8, 3), np.uint8), nothing, nothing, ("black",)))
    return artifact


def colours(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Images of one dominant colour, uint8 (count, 8, 8, 3), and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 100, (count, 8, 8, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 150
    return images, labels


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    root = tmp_path_factory.mktemp("exports")
    kinds = [("onnx", "fp32"), ("openvino", "fp32"), ("coreml", "fp16")]
    return [export(root / f"{target}-{precision}", target, precision) for target, precision in kinds]


@pytest.fixture(scope="session")
def ready_files(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """LiteRT and ExecuTorch files: fp32, fp32, int8."""
    root = tmp_path_factory.mktemp("ready")
    kinds = [("litert", "fp32"), ("executorch", "fp32"), ("executorch", "int8")]
    return [export(root / f"{target}-{precision}", target, precision) for target, precision in kinds]


@pytest.fixture
def plan(tmp_path: Path) -> TimingPlan:
    """Twelve colour images, two of them as PNG files, and very little time."""
    from PIL import Image

    images, _ = colours()
    np.save(tmp_path / "images.npy", images)
    encoded = []
    for index in range(2):
        encoded.append(tmp_path / f"a photo {index}.png")
        Image.fromarray(images[index]).resize((20, 16)).save(encoded[-1])
    return TimingPlan(
        preset="tiny",
        min_count=20,
        min_seconds=0.02,
        images=tmp_path / "images.npy",
        spec=SPEC,
        encoded=tuple(encoded),
        end_to_end_count=4,
        slice_ms=2.0,
        time_limit_s=120.0,
    )
