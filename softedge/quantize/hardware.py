"""Answers of an int8 file on processors that are not here, under qemu. For numerics only: nothing emulated is timed."""

from __future__ import annotations

from typing import Any

import numpy as np

from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.eval.measures import Float32, agreement
from softedge.export.base import open_format
from softedge.export.calibration import spread
from softedge.files import temporary_folder
from softedge.records import Artifact

IMAGES = 64  # emulation takes about 0.2 s for each


def changed_answers(artifact: Artifact, images: Uint8, here: Float32, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Run ``artifact`` on an emulated processor of each kind ("avx2", "arm64") and compare with this machine's answers.

    images: uint8 (N, S, S, 3), 64 of them are used.  here: this machine's outputs (N, C) for them.
    Returns kind -> {n, changed (fraction), max_abs_diff, advice} or {not_run: the reason}.
    """
    from softedge.bench.base import DeviceError, TimingPlan, open_device

    format_, some = open_format(artifact.target), spread(len(images), IMAGES)
    images, here = images[some], here[some]
    by_kind: dict[str, Any] = {}
    for kind in kinds:
        try:
            with open_device(f"emulated:{kind}") as device, temporary_folder("emulated") as folder:
                path = folder / "images.npy"
                np.save(path, images)
                measurement = device.run([artifact], TimingPlan.of("quick", path, artifact.spec))[0]
        except (DeviceError, UserError) as error:
            by_kind[kind] = {"not_run": str(error)}
            continue
        if measurement.skipped or measurement.outputs is None:
            by_kind[kind] = {"not_run": measurement.skipped or "it returned no outputs"}
            continue
        outputs = np.asarray(measurement.outputs, np.float32)
        changed = 1 - agreement(here, outputs, artifact.output)
        differs = changed > 0 or float(np.abs(outputs - here).max()) > format_.tolerance(artifact.precision).replay
        by_kind[kind] = {
            "n": len(images),
            "changed": changed,
            "max_abs_diff": float(np.abs(outputs - here).max()),
            "advice": format_.saturation_advice if kind == "avx2" and differs else "",
        }
    return by_kind
