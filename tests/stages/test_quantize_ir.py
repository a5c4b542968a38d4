"""The tests of ``quantize_ir_cases.py``, in a process of their own.

In one that has run a few hundred other tests before, OpenVINO or NNCF end the whole process without a word at the
first of them. Which state they trip over is not known; the command line starts with a process of its own, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_openvino_files_of_others_are_quantized_or_refused() -> None:
    cases = Path(__file__).with_name("quantize_ir_cases.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(cases)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
