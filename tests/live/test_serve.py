"""How softedge review ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_review_is_ended_by_either_signal_and_says_where_the_decisions_are(tmp_path: Path, number: int) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    command = [sys.executable, "-m", "softedge", "review", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "Ctrl-C ends it" not in (line := process.stderr.readline()):
        assert line, process.communicate()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "nothing was decided\n", "")
