"""One exported file: converted, read back, compared with PyTorch, and complete with contract and snippets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softedge.errors import CannotRunHere, Refused, UserError
from softedge.eval import measures
from softedge.export import contract, parity, snippet
from softedge.export.base import Float32, Format, Uint8
from softedge.export.calibration import Calibration, none
from softedge.export.deployed import Deployed
from softedge.export.tolerance import of
from softedge.files import temporary_folder
from softedge.machine.provenance import cpu_name, versions
from softedge.progress import plural, say
from softedge.records import Artifact, Outcome

_LARGEST_INT8 = 0.6  # of the float parameters' bytes: more, and most weights of an int8 file are not in 8 bits
_SMALLEST = 400_000  # bytes of float parameters below which the graph itself counts


@dataclass(frozen=True)
class Source:
    """What is exported: the network, the file it came from, images to calibrate and to compare on.

    calibration: called for files that need it; UserError where its images can no longer be read.
    """

    deployed: Deployed
    checkpoint: Path
    calibration: Callable[[], Calibration]
    images: Uint8
    names: tuple[str, ...]
    golden: int  # how many of ``images`` travel with the file
    white: Mapping[str, float] = field(default_factory=dict)  # of pixels with more than 8 bits (``data.ranges``)


def write(format_: Format, precision: str, source: Source, folder: Path) -> Outcome:
    """Convert, read the file back, compare with PyTorch, and move model, golden images and contract into ``folder``."""
    with temporary_folder("export", beside=folder / contract.FILE) as partial:
        return _written(format_, precision, source, folder, partial)


def _written(format_: Format, precision: str, source: Source, folder: Path, partial: Path) -> Outcome:
    clock = time.monotonic()
    chosen = _calibration(format_, precision, source)
    artifact = format_.convert(source.deployed, precision, chosen.images, partial)
    seconds = time.monotonic() - clock
    if format_.bits(precision).is_int8:
        refuse_float(artifact, source.deployed)
    reference = source.deployed.predict(source.images)
    try:
        outputs, measured, not_checked = *_compared(format_, artifact, source, reference), ""
    except CannotRunHere as error:  # the file is as good as before: it is kept, and nobody takes it for checked
        outputs, measured, not_checked = reference, None, f"not checked: {error}"
    n, allowed = source.golden, of(format_.tolerance(precision), artifact.output)
    golden = contract.Golden(source.images[:n], outputs[:n], reference[:n], source.names[:n])
    about: dict[str, Any] = {
        "checkpoint": {"file": source.checkpoint.name, **source.deployed.about},
        "calibration": chosen.to_dict() if len(chosen.images) else None,
        "parity": measured.to_dict() if measured else None,
        "versions": versions(),
        "made_on": cpu_name(),
    }
    if not_checked:
        about["not_checked"] = f"{not_checked}; the expected outputs of the golden images are PyTorch's"
    if notes := format_.notes(artifact):
        about["notes"] = notes
    if source.white:
        about["white"] = dict(source.white)
    contract.write(partial, artifact, golden, about)
    snippet.write(partial)
    for path in sorted(partial.iterdir(), key=lambda p: p.name == contract.FILE):
        os.replace(path, folder / path.name)
    compared = measured.to_dict() if measured else {}
    metrics = {**compared, "size_bytes": artifact.size_bytes, "seconds": round(seconds, 3)}
    details = {"artifact": artifact.name, "sha256": artifact.sha256, "tolerance": allowed.to_dict(), **about}
    size = artifact.size_bytes / 1e6
    speed = about.get("notes", {}).get("speed", {})
    ratio, unsure = speed.get("time_over_fp32"), speed.get("not_measured")
    timed = f", {ratio:.2f} x the time of fp32 here" if ratio else f", time not measured: {unsure}" if unsure else ""
    gap = f"largest difference to PyTorch {measured.max_abs_diff:.1g}" if measured else not_checked
    say(f"{artifact.name}: {size:.2f} MB, {gap}{timed}")
    return Outcome(metrics=metrics, details=details, skipped={"parity": not_checked} if not_checked else {})


def _calibration(format_: Format, precision: str, source: Source) -> Calibration:
    """None where the file can do without, and there are none that can be read."""
    if not format_.calibrates(precision):
        return none(source.deployed.spec)
    try:
        return source.calibration()
    except UserError as error:
        if format_.needs_calibration(precision):
            raise
        say(f"{format_.name}-{precision} keeps its weights to the nearest steps: {error}")
        return none(source.deployed.spec)


def refuse_float(artifact: Artifact, deployed: Deployed) -> None:
    """Refused: an int8 file that is one in name only: most of its weights are stored in float."""
    in_float = sum(4 * value.numel() for value in deployed.model.parameters())
    if in_float >= _SMALLEST and artifact.size_bytes > _LARGEST_INT8 * in_float:
        raise Refused(
            f"{artifact.name} has {artifact.size_bytes / 1e6:.1f} MB, fp32 {in_float / 1e6:.1f} MB: most weights "
            "stayed in float, in operators that this format does not quantize; use fp16"
        )


def _compared(format_: Format, artifact: Artifact, source: Source, reference: Float32) -> tuple[Float32, parity.Parity]:
    """The file's outputs on the images of ``source``, and how near they are to PyTorch's.

    Raises Refused when they are too far, CannotRunHere when the file cannot be run on this machine.
    """
    predict = format_.load(artifact)
    outputs = predict(source.images)
    measured = parity.compare(outputs, reference, artifact.output)
    allowed = of(format_.tolerance(artifact.precision), artifact.output)
    found = measures.compare(reference, outputs, None, artifact.output)
    found |= measures.farthest(reference, outputs, artifact.output, allowed.parity)
    if why := parity.refusal(found, artifact.precision, artifact.output, allowed):
        raise Refused(_departure(format_, artifact, source, why))
    n = source.golden
    alone = parity.one_by_one(predict, source.images[:n])
    if n and not (gap := parity.difference(alone, outputs[:n], artifact.output)) <= allowed.replay:
        raise UserError(
            f"{artifact.name} gives different outputs for one image than for a batch (difference {gap:.2g}, allowed "
            f"{allowed.replay:g}): this is a fault of the runtime; fix the batch size with --set export.batch=one"
        )
    return outputs, measured


def _departure(format_: Format, artifact: Artifact, source: Source, why: str) -> str:
    line = f"{artifact.name} differs from PyTorch on {plural(len(source.images), 'real image')}: {why}"
    limit = 1e-3 if artifact.precision == "fp32" else 3e-2
    layers = list(format_.layer_outputs(artifact, source.images[:1], source.deployed))
    if not layers:
        return line
    first = parity.first_departure(source.deployed, lambda images: layers, source.images[:1], limit=limit)
    return f"{line}; the first layer that departs is {first}" if first else f"{line}; every layer agrees up to the last"
