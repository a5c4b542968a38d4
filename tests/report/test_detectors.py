"""Exported detectors in the report: a row a file, and a caution for one that finds nothing."""

from __future__ import annotations

import re
import shutil

import pytest
import synthetic_run
from synthetic_run import result

from softedge.report import cautions, detectors, report
from softedge.report.collect import collect
from softedge.run import Run

REFUSED = "AP drop 0.040 is above 0.01"


@pytest.fixture
def run(tmp_path):
    made = synthetic_run.make(tmp_path / "run")
    line = "AP 0.000: this detector finds nothing"
    result(made, "transfer/voc", {"AP": 0.0, "AP50": 0.0}, details={"AP50_per_class": {}, "cautions": [line]})
    folder = Run(made.folder("transfer/voc"))
    common = {"artifact": "onnx-fp32", "size_bytes": 4_000_000, "AP": 0.41, "AP50": 0.68, "drop": 0.0, "passed": True}
    worse = {"artifact": "onnx-int8", "AP": 0.37, "drop": 0.04, "passed": False, "why": REFUSED}
    result(folder, "check", {"AP": 0.41}, details={"rows": [common, common | worse]})
    for name in ("onnx-fp32", "onnx-int8"):
        result(folder, f"export/{name}", {"size_bytes": 4_000_000})
    result(folder, "bench/onnx-int8@local", {"p90_ms": 12.5})
    return made


def test_every_checked_file_is_a_row_with_its_latency(run):
    rows = detectors.files(run, "voc")
    assert [(row["artifact"], row["AP"], row["devices"]) for row in rows] == [
        ("onnx-fp32", 0.41, {}),
        ("onnx-int8", 0.37, {"local": 12.5}),
    ]
    assert detectors.files(run, "coco") == []
    shutil.rmtree(run.folder("transfer/voc/export/onnx-int8"))
    assert [row["artifact"] for row in detectors.files(run, "voc")] == ["onnx-fp32"], "a file that is gone has no row"


def test_another_precision_than_was_checked_is_said_with_its_own_precision_average(run):
    folder = Run(run.folder("transfer/voc"))
    result(folder, "bench/onnx-fp32@board", {"p90_ms": 5.0, "AP": 0.402}, details={"effective_precision": "bf16"})
    assert detectors.files(run, "voc")[0]["notes"] == {"board": "in bf16, AP 40.2\u202f%"}
    table = re.search(r"Table of exported detectors.*?</table>", report([run]).read_text(), re.S)
    assert table is not None and "on board (in bf16, AP 40.2\u202f%)" in table[0]


def test_the_page_shows_the_files_and_the_caution(run):
    assert "Detector voc: AP 0.000: this detector finds nothing" in cautions.cautions_of(collect(run, layout=False))
    table = re.search(r"Table of exported detectors.*?</table>", report([run]).read_text(), re.S)
    assert table is not None
    assert "41.0" in table[0] and "12.5" in table[0] and REFUSED in table[0] and "not run" in table[0]
