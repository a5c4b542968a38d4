"""Signals reach Python while OpenVINO's networks come and go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

_BEGIN = """
import gc, os, signal, sys
import numpy as np, openvino as ov
from openvino import opset13
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
def network(*shape):
    image = opset13.parameter(list(shape) or [-1, 8, 8, 3], np.uint8)
    planes = opset13.transpose(opset13.convert(image, "f32"), opset13.constant([0, 3, 1, 2]))
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    return ov.Model([opset13.convolution(planes, opset13.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])], [image])
"""
_END = """
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
assert heard == [1]
"""
_BOTH_END_AS_THEY_BEGAN = "del first; gc.collect(); del second"


def ran(code: str) -> int:
    """Exit status of a process that gets a signal after ``code``; below 0: ended by that signal."""
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", _BEGIN + code + _END], cwd=root, capture_output=True).returncode


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO changes the stack of signal handlers on Linux only")
def test_two_cores_of_openvino_end_the_process_at_the_next_signal() -> None:
    """Why ``core()`` exists: when this fails, OpenVINO has mended it, and ``core.py`` is needed no more."""
    two = "first, second = (ov.Core().compile_model(network(), 'CPU') for _ in range(2))\n"
    assert ran(two + _BOTH_END_AS_THEY_BEGAN) == -11


def test_networks_compiled_here_leave_signal_handlers_their_stack() -> None:
    two = "from softedge.export.openvino.network import compiled\n"
    two += "first, second = compiled(network()), compiled(network())\n"
    assert ran(two + _BOTH_END_AS_THEY_BEGAN) == 0


def test_nncf_quantizes_with_the_one_core_of_the_process() -> None:
    pytest.importorskip("nncf")
    code = """
from softedge.export.openvino import int8
images = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
made, Core = [], ov.Core
ov.Core = counted = lambda: made.append(1) or Core()
int8.compiled(int8.compressed(int8.with_ranges(network(), images, "defaults")))
assert made == [1] and ov.Core is counted
"""
    assert ran(code) == 0
