"""What pages make of an output in integers is what Python makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import softedge.bench.browser
from softedge.export.finishing import finish

SOURCE = Path(softedge.bench.browser.__file__).parent / "integers.js"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("output", ["probabilities", "scores", "features"])
def test_integers_become_the_same_numbers_in_the_browser(output, tmp_path):
    (tmp_path / "integers.mjs").write_text(SOURCE.read_text())
    coded, edge = [0, 120, 131, 255], {"scale": 0.07, "zero_point": 120, "output": output}
    code = (
        'import { finished } from "./integers.mjs";'
        f"console.log(JSON.stringify(Array.from(finished(Uint8Array.from({coded}), {json.dumps(edge)}))))"
    )
    (tmp_path / "run.mjs").write_text(code)
    done = subprocess.run(["node", tmp_path / "run.mjs"], capture_output=True, text=True, check=True)
    values = (np.array([coded], np.float32) - 120) * np.float32(0.07)
    assert np.abs(np.array(json.loads(done.stdout)) - finish(values, output)[0]).max() < 1e-6
