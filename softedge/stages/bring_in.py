"""``softedge import``: latency that another tool measured, in the same table and marked as such."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path, PureWindowsPath

from softedge.bench.imported import Reading, read
from softedge.errors import UserError, did_you_mean
from softedge.export import contract
from softedge.records import Outcome, Result
from softedge.run import Run, perform, sha256
from softedge.stages.opening import reopened

_LONGEST = 80  # characters of a device's name in the name of its folder


def bring_in(run: str | PathLike[str], file: str | Path, artifact: str, device: str, force: bool = False) -> Result:
    """Take another tool's latency numbers for an exported file into the run, marked "measured elsewhere".

    artifact: which exported file was measured ("coreml-fp16"); its hash is recorded, that it is the same file is the
    user's word.  device: what a reader should see, "iPhone 15 Pro".
    """
    with reopened(run) as (opened, _):
        return stage(opened, Path(file), artifact, device, force=force)


def _refuse_another(path: Path, reading: Reading, artifact: str, name: str, known: Sequence[str]) -> None:
    """UserError where the output names another model file.  name: of the artifact's file.  known: all artifacts."""
    if not reading.model:
        return
    measured = PureWindowsPath(reading.model)  # splits at both kinds of slash
    folder = measured.parent.name
    if measured.name != name or (folder in known and folder != artifact):
        raise UserError(
            f"{path}: {reading.tool} measured {reading.model}, and {artifact} is {artifact}/{name}; measure that file, "
            f"or correct its name in {path} if it is a renamed copy"
        )


def stage(run: Run, path: Path, artifact: str, device: str, force: bool = False) -> Result:
    """Write the numbers of ``path`` as ``bench/<artifact>@elsewhere_<device>``."""
    known = tuple(run.results("export"))
    if artifact not in known:
        raise UserError(f"{run.root} has no exported file '{artifact}'{did_you_mean(artifact, known)}")
    if not device.strip():
        raise UserError("name the device it was measured on, for example --device 'iPhone 15 Pro'")
    reading = read(path)
    file = contract.read(run.folder(f"export/{artifact}"))
    _refuse_another(path, reading, artifact, file.path.name, known)
    outcome = Outcome(
        metrics={**reading.metrics, "size_bytes": file.size_bytes, "valid": False},
        details={
            "artifact": artifact,
            "target": file.target,
            "precision": file.precision,
            "sha256": file.sha256,
            "sha256_checked": False,
            "measured_elsewhere": True,
            "tool": reading.tool,
            "device": {"name": device},
            "why_not_valid": f"measured elsewhere, by {reading.tool} and its rules",
            "imported": {"file": path.name, "sha256": sha256(path), **reading.details},
            **({"caveat": reading.details["caveat"]} if "caveat" in reading.details else {}),
        },
        skipped={
            "top1": f"not run: {reading.tool} does not measure accuracy",
            "end_to_end": f"not run: {reading.tool} does not decode and resize photos",
        },
    )
    folder = re.sub(r"[^A-Za-z0-9.-]+", "_", device).strip("_")
    if len(folder) > _LONGEST or not device.isascii():  # other names may not give the same folder
        folder = f"{folder[:_LONGEST]}{hashlib.sha256(device.encode(errors='surrogateescape')).hexdigest()[:8]}"
    inputs = {"model": file.sha256, "imported": sha256(path)}
    name = f"bench/{artifact}@elsewhere_{folder}"
    return perform(run, name, lambda _: outcome, recipe={"device": device}, inputs=inputs, force=force)
