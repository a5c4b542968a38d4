"""The ssh device on a whole Debian for arm64: another processor, another kernel, nothing installed but Python."""

from __future__ import annotations

import debian_board
import numpy as np
import pytest
from colour_model import colours
from test_local import reference

from softedge.bench.base import TimingPlan, open_device
from softedge.records import Artifact


@pytest.mark.slow
@pytest.mark.hardware
def test_a_board_of_2_gb_runs_the_files_of_every_runtime_that_travels(
    artifacts: list[Artifact], ready_files: list[Artifact], plan: TimingPlan
) -> None:
    if why := debian_board.why_not():
        pytest.skip(why)
    files = [*artifacts[:2], *ready_files]
    with debian_board.running() as address, open_device(address) as device:
        device.prepare(files)
        facts = device.describe()
        measured = device.run(files, plan)
    assert facts["cpu"] == "ARM Cortex-A72" and facts["memory_bytes"] < 2 << 30 and "aarch64" in facts["os"]
    assert facts["emulated"] and len(facts["sent_wheels"]) == 6  # numpy, Pillow and four runtimes
    for artifact, measurement in zip(files, measured, strict=True):
        assert not measurement.skipped and measurement.outputs is not None, measurement.skipped
        closeness = 0.01 if artifact.precision == "int8" else 1e-5
        np.testing.assert_allclose(measurement.outputs, reference(colours()[0]), atol=closeness)
        assert "qemu" in measurement.not_timed and not measurement.samples_ms and measurement.load_ms is None
        assert measurement.peak_memory_bytes is not None and measurement.peak_memory_bytes < 200 << 20
