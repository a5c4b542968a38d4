"""An exported detector read back from disk, its golden pictures replayed. Needs the runtime and numpy, no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.detection.formats import ONNX, OPENVINO
from softedge.errors import GateFailed, UserError
from softedge.export.base import needs
from softedge.export.contract import FILE, describe, model_files, model_sha256
from softedge.records import Artifact, InputSpec

Uint8 = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
Runner = Callable[[Uint8], Outputs]
REPLAYED = 0.98  # of the detections must come again: fp16 and int8 files round differently on another processor


def run_onnx(path: Path, threads: int = 1) -> Runner:
    """The file read back with onnxruntime: one picture (H, W, 3) -> outputs by name."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(None, {"image": image[None]})))


def run_openvino(path: Path, threads: int = 1) -> Runner:
    """The file read back with OpenVINO in float32: one picture (H, W, 3) -> outputs by name."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    names = [output.any_name for output in compiled.outputs]
    return lambda image: dict(zip(names, (np.array(value) for value in compiled([image[None]]).values())))


RUNNERS: dict[str, Callable[[Path], Runner]] = {ONNX: run_onnx, OPENVINO: run_openvino}
_PACKAGES = {ONNX: "onnxruntime", OPENVINO: OPENVINO}


def runner(artifact: Artifact) -> Runner:
    """Load an exported detector; UserError when its runtime is not installed or refuses the file."""
    if (why := needs(f"running {artifact.name}", _PACKAGES[artifact.target])) is not None:
        raise UserError(why)
    try:
        return RUNNERS[artifact.target](artifact.path)
    except Exception as error:  # both runtimes raise their own kinds
        raise UserError(f"{artifact.path} cannot be loaded ({str(error).strip().splitlines()[-1][:200]})") from error


def read(folder: Path) -> Artifact:
    """The detector in an export folder; UserError when a file is missing or is not the one that was exported."""
    values = describe(folder)
    if values.get("kind") != "detector":
        raise UserError(f"{folder} does not hold a detector")
    path = Path(folder) / values["model"]
    if missing := [file for file in model_files(path, values["target"]) if not file.is_file()]:
        raise UserError(f"{missing[0]} is not there, but {Path(folder) / FILE} names it; export the detector again")
    if model_sha256(path, values["target"]) != values["sha256"]:
        raise UserError(f"{path} was changed after the export; export the detector again")
    # Any picture goes in as it is: size and resize stand for nothing but a field that classifiers have.
    spec = InputSpec.from_dict(values["preprocessing"])
    return Artifact(
        path,
        values["target"],
        values["precision"],
        values["sha256"],
        values["size_bytes"],
        spec,
        tuple(values["labels"]),
        "detections",
    )


def agreement(found: Outputs, reference: Outputs, above: float = 0.05) -> float:
    """Share of the reference's detections with a score above 0.05 that are found: same label, score within 0.01, every
    side within a pixel. Below it lie hundreds of near ties, of which the limit of 100 keeps one or the other.
    """
    reference = {name: value[reference["scores"] > above] for name, value in reference.items()}
    if not len(reference["scores"]):
        return 1.0
    near = (
        (reference["labels"][:, None] == found["labels"][None])
        & (np.abs(reference["scores"][:, None] - found["scores"][None]) < 0.01)
        & (np.abs(reference["boxes"][:, None] - found["boxes"][None]).max(-1, initial=0.0) < 1.0)
    )
    return float(near.any(1).mean())


def verify(folder: Path) -> dict[str, Any]:
    """Replay the golden pictures of an export folder; GateFailed when detections do not come again.

    Returns artifact, target, precision, sha256, n, agreement (the least of the pictures), passed and ``rows``.
    """
    artifact, contract = read(folder), describe(folder)
    run = runner(artifact)
    names = [output["name"] for output in contract["outputs"]]
    rows: list[dict[str, Any]] = []
    with np.load(Path(folder) / contract["golden"]["file"], allow_pickle=False) as golden:
        for number in range(contract["golden"]["images"]):
            expected = {name: golden[f"{number}.{name}"] for name in names}
            share = agreement(run(golden[f"{number}.image"]), expected)
            rows.append({"image": str(number), "detections": len(expected["scores"]), "agreement": share})
    least = min((row["agreement"] for row in rows), default=1.0)
    if least < REPLAYED:
        raise GateFailed(
            f"{folder}: only {100 * least:.1f}% of the detections on a golden picture come again (at least "
            f"{100 * REPLAYED:g}%): this machine's runtime does not compute what was exported"
        )
    return {
        "artifact": artifact.name,
        "target": artifact.target,
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "n": len(rows),
        "agreement": least,
        "passed": True,
        "rows": rows,
    }
