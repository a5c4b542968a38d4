"""contract.json of an exported detector, written and read. Needs numpy alone, so that a board can verify its file.

image   uint8 RGB [1, H, W, 3], any size
boxes   float32 [n, 4], x1 y1 x2 y2 in pixels of that image;  scores float32 [n], best first within a class
labels  int64 [n] into ``labels``;  masks float32 [n, H, W], probability of each pixel (Mask R-CNN only)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softedge.detection import formats
from softedge.detection.format import hash_files
from softedge.errors import UserError
from softedge.export.contract import FILE, SCHEMA, describe
from softedge.export.contract import damage_named as damage_named
from softedge.export.contract_fields import check_common
from softedge.records import Artifact, InputSpec
from softedge.run import size_bytes, write_json

KIND = "detector"
NAMES = ("boxes", "scores", "labels", "masks")


def write(
    path: Path, target: str, precision: str, spec: InputSpec, labels: Sequence[str], *, masks: bool, **about: Any
) -> None:
    """Write contract.json beside the model file ``path``; about: more entries (golden, parity)."""
    files = formats.of(target).files(path)
    where = "x1 y1 x2 y2 in pixels of the input image"
    outputs = [
        {"name": "boxes", "dtype": "float32", "shape": ["n", 4], "meaning": where},
        {"name": "scores", "dtype": "float32", "shape": ["n"]},
        {"name": "labels", "dtype": "int64", "shape": ["n"], "meaning": "index into labels"},
        {"name": "masks", "dtype": "float32", "shape": ["n", "H", "W"], "meaning": "probability of each pixel"},
    ]
    values = {
        "schema": SCHEMA,
        "kind": KIND,
        "target": target,
        "precision": precision,
        "model": path.name,
        "files": [file.name for file in files],
        "sha256": hash_files(files),
        "size_bytes": sum(size_bytes(file) for file in files),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "color": "RGB", "shape": [1, "H", "W", 3]},
        "before_the_model": "nothing: resizing, scaling, mean and std are inside the model, and so is NMS",
        "preprocessing": spec.to_dict(),
        "outputs": outputs if masks else outputs[:3],
        "labels": list(labels),
        **about,
    }
    write_json(path.parent / FILE, values)


def is_detector(folder: Path) -> bool:
    """Whether the folder's contract.json is a detector's; False where there is none, or none that can be read."""
    if not (Path(folder) / FILE).is_file():
        return False
    try:
        return bool(describe(folder).get("kind") == KIND)
    except UserError:
        return False


def read(folder: Path) -> Artifact:
    """The detector in an export folder; UserError when a file is missing or is not the one that was exported."""
    values = describe(folder)
    if values.get("kind") != KIND:
        raise UserError(f"{folder} does not hold a detector")
    with damage_named(folder):
        spec = check_common(values)
        path, precision = Path(folder) / values["model"], values["precision"]
        if precision not in formats.PRECISIONS:
            raise ValueError(f"precision is {precision!r}; known: {', '.join(formats.PRECISIONS)}")
        outputs = [output["name"] for output in values["outputs"]]
        if outputs not in ([*NAMES], [*NAMES[:3]]):
            raise ValueError(f"outputs are {outputs}")
        files = formats.of(values["target"]).files(path)
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(
                f"{missing[0]} does not exist, but {Path(folder) / FILE} names it; export the detector again"
            )
        if hash_files(files) != values["sha256"]:
            raise UserError(f"{path} was changed after the export; export the detector again")
        size, labels = sum(size_bytes(file) for file in files), tuple(values["labels"])
    # Any picture goes in as it is: size and resize only fill a field that classifiers have.
    return Artifact(path, values["target"], precision, values["sha256"], size, spec, labels, "detections")
