"""contract.json beside an exported model: everything an app must know, and golden images to prove that it got it right.

Reading it needs numpy alone, so that a board without torch can verify its file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.errors import UserError, quoted
from softedge.eval.measures import PRESENT
from softedge.export.base import Float32, Uint8, open_format
from softedge.export.contract_fields import check_shapes, preprocessing_of
from softedge.export.tolerance import of as tolerance_of
from softedge.records import Artifact, InputSpec, Output
from softedge.run import atomic_path, read_json, sha256, size_bytes, write_json

SCHEMA = 1
FILE = "contract.json"
INPUT = "image"


_MEANING: dict[str, dict[str, Any]] = {
    "probabilities": {"activation": "softmax"},
    "scores": {"activation": "sigmoid", "present_from": PRESENT},  # each label for itself; any number are present
}


def model_files(path: Path, target: str) -> list[Path]:
    """All files of the model whose main file is ``path``, as its format names them."""
    return open_format(target).files(path)


def _sha256(files: Sequence[Path]) -> str:
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def artifact_of(
    path: Path,
    target: str,
    precision: str,
    spec: InputSpec,
    labels: tuple[str, ...] = (),
    output: Output = "probabilities",
) -> Artifact:
    """Describe a model that was just written, all its files included."""
    files = model_files(path, target)
    size = sum(size_bytes(file) for file in files)
    return Artifact(path, target, precision, _sha256(files), size, spec, labels, output)


@dataclass(frozen=True)
class Golden:
    """Images with the outputs of this file on the exporting machine, and of PyTorch fp32.

    images: uint8 (N, size, size, 3).  expected, pytorch: float32 (N, outputs).
    """

    images: Uint8
    expected: Float32
    pytorch: Float32
    names: tuple[str, ...] = ()


def write(folder: Path, artifact: Artifact, golden: Golden, about: dict[str, Any] | None = None) -> Path:
    """Write the golden arrays and then ``contract.json`` into ``folder``; returns the path of the contract.

    about: more entries for the contract (checkpoint, calibration, parity, versions, runtime; white: the value that
    becomes 255, for pixels with more than 8 bits: "I" of integers, "F" of floats).
    """
    arrays: dict[str, NDArray[Any]] = {"images": golden.images, "expected": golden.expected, "pytorch": golden.pytorch}
    stored = {}
    for name, array in arrays.items():
        path = folder / "golden" / f"{name}.npy"
        _save_array(path, array)
        stored[name] = {"file": f"golden/{name}.npy", "sha256": sha256(path), "shape": list(array.shape)}
    spec, format_ = artifact.spec, open_format(artifact.target)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "target": artifact.target,
        "precision": artifact.precision,
        "bits": dataclasses.asdict(format_.bits(artifact.precision)),
        "model": artifact.path.name,
        "files": [file.name for file in format_.files(artifact.path)],
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "layout": "NHWC",
            "color": "RGB",
            "shape": ["N", spec.size, spec.size, 3],
        },
        "before_the_model": (
            f"{_eight_bits(about or {})}shorter side to {spec.resize} pixels ({spec.interpolation}, antialiased), "
            f"centre crop of {spec.size} x {spec.size}, uint8 RGB; {_inside(about or {})} are inside the model"
        ),
        "preprocessing": spec.to_dict(),
        "output": {
            "name": artifact.output,
            "dtype": "float32",
            "shape": ["N", int(golden.expected.shape[1])],
            **_MEANING.get(artifact.output, {}),
        },
        "labels": list(artifact.labels),
        "golden": {"names": list(golden.names), **stored},
        "tolerance": tolerance_of(format_.tolerance(artifact.precision), artifact.output).to_dict(),
        **(about or {}),
    }
    for name, more in format_.integer_edges(artifact).items():
        values[name] = {**values[name], **more}
    write_json(folder / FILE, values)
    return folder / FILE


def _eight_bits(about: Mapping[str, Any]) -> str:
    """What an app does with pixels of more than 8 bits, where training saw such; "" elsewhere."""
    white = about.get("white", {})
    kinds = [f"{white[key]:g} ({kind})" for key, kind in (("I", "integers"), ("F", "floats")) if key in white]
    return f"pixels with more than 8 bits to 0..255, 255 from {' or '.join(kinds)} on; " if kinds else ""


def _inside(about: Mapping[str, Any]) -> str:
    """What the model does itself; to grey where its weights are for grey images (``export.given``)."""
    return f"scaling, mean{', std and the conversion to grey' if 'grey' in about.get('checkpoint', {}) else ' and std'}"


def _save_array(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def again(folder: Path) -> str:
    """What to do about a damaged export folder, at the end of a line."""
    searched = Path(folder).name.endswith("-search")
    return (
        f"make it again: softedge quantize {quoted(Path(folder).parent.parent)}"
        if searched
        else "export the model again"
    )


def _without(folder: Path) -> str:
    """Why a folder has no contract, and what to do."""
    with contextlib.suppress(UserError, KeyError, TypeError):
        if "asked" in read_json(folder / "result.json")["recipe"]:  # of ``stages.quantize_file``
            return (
                "softedge quantize wrote it from a model file, and has compared it with that file; it has no golden "
                "images to replay. On another machine, compare the answers of both files on a few images of yours"
            )
    return "not an export folder; give one like RUN/export/onnx-int8"


def describe(folder: Path) -> dict[str, Any]:
    """The contract as plain values; UserError when ``folder`` has none or it is of another version."""
    folder = Path(folder)
    path = folder / FILE
    if not folder.is_dir():
        there = "is a file" if folder.exists() else "is not there"
        raise UserError(f"{folder} {there}; give an export folder like RUN/export/onnx-int8")
    if not path.is_file():
        raise UserError(f"{folder} holds no {FILE}: {_without(folder)}")
    try:
        values = read_json(path)
    except UserError as error:
        raise UserError(f"{error}: {again(folder)}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        schema = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise UserError(f"{path} has schema {schema}, this softedge reads {SCHEMA}; {again(folder)}")
    return values


def read(folder: Path) -> Artifact:
    """The model in an export folder; UserError when a file is missing or is not the one that was exported."""
    folder = Path(folder)
    values = describe(folder)
    with damage_named(folder):
        spec = preprocessing_of(values)
        path = folder / values["model"]
        files = [folder / name for name in values["files"]]  # as exported, whatever the format says today
        for file in files:
            if not file.exists():
                raise UserError(f"{file} does not exist, but {folder / FILE} names it; {again(folder)}")
        digest, expected = _sha256(files), values["sha256"]
        if digest != expected:
            raise UserError(
                f"{path} was changed after the export (sha256 {digest[:12]}, the contract says {expected[:12]}); "
                f"its checks no longer hold: {again(folder)}"
            )
        size, labels = sum(size_bytes(file) for file in files), tuple(values["labels"])
        output: Output = values["output"]["name"]
    return Artifact(path, values["target"], values["precision"], digest, size, spec, labels, output)


def read_golden(folder: Path) -> Golden:
    """The golden images and outputs of an export folder; UserError when one is missing or was changed."""
    folder = Path(folder)
    values = describe(folder)
    arrays = {}
    with damage_named(folder):
        entries = values["golden"]
        for name in ("images", "expected", "pytorch"):
            path = folder / entries[name]["file"]
            if not path.is_file():
                raise UserError(f"{path} does not exist, but {folder / FILE} names it; {again(folder)}")
            if sha256(path) != entries[name]["sha256"]:
                raise UserError(f"{path} was changed after the export; {again(folder)}")
            arrays[name] = np.load(path, allow_pickle=False)
        golden = Golden(**arrays, names=tuple(str(name) for name in entries["names"]))
        check_shapes(values, golden.images, golden.expected, golden.pytorch)
    return golden


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what reading the fields of a contract raises into a UserError that names its file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{Path(folder) / FILE} is damaged ({what}); {again(folder)}") from error


def exported(root: Path) -> list[Artifact]:
    """Every readable model below ``root`` (``RUN/export``), by name; folders without a contract are left out."""
    return [read(path.parent) for path in sorted(Path(root).glob(f"*/{FILE}"))]


def to_json(values: Any) -> str:
    """Compact JSON for the metadata inside a model file."""
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)
