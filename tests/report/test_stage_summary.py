"""A few words under the name of a stage."""

from __future__ import annotations

from typing import Any

import pytest

from softedge.records import Result
from softedge.report.phrases import stage_summary
from softedge.report.stages import StageRecord


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"onnx-int8": None}, "no search needed"),
        ({"onnx-int8": [{"step": "default"}]}, "1 int8 file searched"),
        ({"onnx-int8": None, "openvino-int8-search": None}, "1 file with another's integers"),
        ({"onnx-int8": [{"step": "default"}], "onnx-int8-search": None}, "1 int8 file searched"),
    ],
)
def test_what_the_int8_search_did(files: dict[str, Any], words: str) -> None:
    rows = [
        {"artifact": name, "precision": name.partition("-")[2], "size_bytes": 1, "search": steps}
        for name, steps in files.items()
    ]
    assert stage_summary({"files": rows}, {"stage": "quantize", "status": "done", "seconds": 1.0}) == words


def test_the_time_of_bench_is_that_of_measuring_and_a_session_counts_once() -> None:
    """Writing down a row takes a moment; the files of a session were measured in turns, within the same seconds."""
    parts: dict[str, dict[str, Any]] = {
        "onnx-fp32@local": {"session": "first", "seconds": 28.4},
        "onnx-int8@local": {"session": "first", "seconds": 28.4},
        "onnx-int8@ssh_pi": {"session": "first", "seconds": 40.0},
        "litert-int8@local": {"session": "later", "seconds": 4.4},
        "coreml-int8@local": {"session": "later"},  # not measured here
    }
    results = {name: Result("bench", "", {}, {}, {}, {}, "2026-01-01", 0.1, details) for name, details in parts.items()}
    assert StageRecord("bench", "done", "", results).to_dict()["seconds"] == pytest.approx(28.4 + 40.0 + 4.4 + 0.5)
