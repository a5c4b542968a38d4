"""The formats that can hold a detector, in one place: ONNX and OpenVINO.

The others have no NMS or no inputs of any size. Every format here is traced through ONNX; reading a file back needs its
runtime and numpy, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from softedge.detection.format import DetectorFormat, Runner
from softedge.detection.onnx_detector import OnnxDetector
from softedge.detection.openvino_detector import OpenVinoDetector
from softedge.errors import UserError
from softedge.export.base import needs, open_format
from softedge.records import Artifact

PRECISIONS = ("fp32", "fp16", "int8")
FORMATS: dict[str, DetectorFormat] = {format_.name: format_ for format_ in (OnnxDetector(), OpenVinoDetector())}


def of(name: str) -> DetectorFormat:
    """The format of a name; UserError with the ones that can hold a detector."""
    if name not in FORMATS:
        raise UserError(
            f"a detector cannot be exported to '{name}'; known: {', '.join(FORMATS)} (the others have no NMS or no "
            "inputs of any size)"
        )
    return FORMATS[name]


def known_names(targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Refuse an unknown format, a precision that no detector has, and nothing to export, before any work."""
    if not targets or not precisions:
        raise UserError("nothing to export: give at least one of --targets and one of --precisions")
    for name in targets:
        open_format(name)
    for precision in precisions:
        known_precision(precision)


def known_precision(name: str) -> None:
    """Refuse a precision that no detector has."""
    if name not in PRECISIONS:
        raise UserError(f"a detector has no precision '{name}'; known: {', '.join(PRECISIONS)}")


def open_runner(artifact: Artifact) -> Runner:
    """Load an exported detector; UserError when its runtime is not installed or refuses the file."""
    chosen = of(artifact.target)
    if (why := needs(f"running {artifact.name}", chosen.package)) is not None:
        raise UserError(why)
    try:
        return chosen.run(artifact.path)
    except Exception as error:  # both runtimes raise their own kinds
        raise UserError(f"{artifact.path} cannot be loaded ({str(error).strip().splitlines()[-1][:200]})") from error
