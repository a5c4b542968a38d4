from __future__ import annotations

from pathlib import Path

import pytest

from softedge.export import calibration
from softedge.stages.artifact import Source


@pytest.fixture
def source(deployed, pictures):
    chosen = calibration.Calibration(pictures[:20], source="test pictures")
    names = tuple(f"p{i}" for i in range(12))
    return Source(deployed, Path("classifier.safetensors"), lambda: chosen, pictures[20:32], names, golden=3)
