"""A few words under the name of a stage."""

from __future__ import annotations

from typing import Any

import pytest

from softedge.report.phrases import stage_summary


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
