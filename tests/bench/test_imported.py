from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import export

from softedge.bench.imported import bring_in, read
from softedge.errors import UserError
from softedge.records import Outcome
from softedge.run import Run, perform

BENCHMARK_APP = {
    "cmd_options": {"-m": "model.xml", "-nthreads": "1"},
    "execution_results": {
        "read model time (ms)": "19.75",
        "compile model time (ms)": "84.66",
        "first inference time (ms)": "15.37",
        "total execution time (ms)": "3004.50",
        "total number of iterations": "3862",
        "latency (ms)": "0.18",
        "avg latency": "0.73",
        "min latency": "0.16",
        "max latency": "16.63",
        "throughput": "1285.41",
    },
}
BENCHMARK_APP_TEXT = """[ INFO ] Compile model took 84.66 ms
[ INFO ] First inference took 15.37 ms
[Step 11/11] Dumping statistics report
[ INFO ] Count:            3862 iterations
[ INFO ] Duration:         3004.50 ms
[ INFO ] Latency:
[ INFO ]    Median:        178.86 us
[ INFO ]    Average:       729.86 us
[ INFO ]    Min:           164.03 us
"""
PERF_TEST = """Session creation time cost: 0.127918 s
First inference time cost: 21 ms
Total inference time cost: 58.8053 s
Total inference requests: 1000
Average inference time cost: 58.8053 ms
Peak working set size: 158171136 bytes
Min Latency: 0.0559777 s
Max Latency: 0.0623472 s
P50 Latency: 0.0587108 s
P90 Latency: 0.0599845 s
P99 Latency: 0.0619517 s
"""
PERF_TEST_OLD = """Total iterations: 1000
Average time cost: 58.8053 ms
P50 Latency is 0.0587108 sec
P90 Latency is 0.0599845 sec
"""
LITERT = """INFO: Initialized session in 3.501ms.
INFO: count=12 first=156677 curr=33205 min=32578 max=156677 avg=43268.1 std=34197
INFO: count=50 first=33228 curr=33130 min=32687 max=33239 avg=33071.8 std=129 p5=32700 median=33070 p95=33200
INFO: Inference timings in us: Init: 3501, First inference: 156677, Warmup (avg): 43268.1, Inference (avg): 33071.8
"""
XCODE = """iPhone 15 Pro  All (CPU, GPU, Neural Engine)
Prediction (Median)
0,84 ms
Load (Median)
95.2 ms
Compilation (Median)
120 ms
"""


@pytest.mark.parametrize(
    ("text", "tool", "expected"),
    [
        (
            json.dumps(BENCHMARK_APP),
            "OpenVINO benchmark_app",
            {"p50_ms": 0.18, "mean_ms": 0.73, "min_ms": 0.16, "n": 3862, "load_ms": 104.41, "first_ms": 15.37},
        ),
        (
            BENCHMARK_APP_TEXT,
            "OpenVINO benchmark_app",
            {"p50_ms": 0.17886, "mean_ms": 0.72986, "min_ms": 0.16403, "n": 3862, "load_ms": 84.66, "first_ms": 15.37},
        ),
        (
            PERF_TEST,
            "onnxruntime_perf_test",
            {
                "mean_ms": 58.8053,
                "min_ms": 55.9777,
                "p50_ms": 58.7108,
                "p90_ms": 59.9845,
                "p99_ms": 61.9517,
                "n": 1000,
                "load_ms": 127.918,
                "first_ms": 21,
                "peak_memory_bytes": 158171136,
            },
        ),
        (
            PERF_TEST_OLD,
            "onnxruntime_perf_test",
            {"mean_ms": 58.8053, "p50_ms": 58.7108, "p90_ms": 59.9845, "n": 1000},
        ),
        (
            LITERT,
            "LiteRT benchmark_model",
            {
                "mean_ms": 33.0718,
                "min_ms": 32.687,
                "p50_ms": 33.07,
                "n": 50,
                "load_ms": 3.501,
                "first_ms": 156.677,
            },
        ),
        (XCODE, "Xcode performance report", {"p50_ms": 0.84, "load_ms": 95.2}),
    ],
)
def test_a_tools_numbers_are_read_and_no_others_are_made_up(
    tmp_path: Path, text: str, tool: str, expected: dict[str, float]
) -> None:
    (tmp_path / "output").write_text(text)
    reading = read(tmp_path / "output")
    assert reading.tool == tool
    assert reading.metrics == pytest.approx(expected)


def test_another_percentile_than_the_median_is_not_called_p50(tmp_path: Path) -> None:
    values = {**BENCHMARK_APP, "cmd_options": {"-latency_percentile": "90"}}
    (tmp_path / "output").write_text(json.dumps(values))
    metrics = read(tmp_path / "output").metrics
    assert metrics["p90_ms"] == 0.18 and "p50_ms" not in metrics


@pytest.mark.parametrize("text", ["", "hello", "{}", "[1]", '{"execution_results": {"latency (ms)": "NaN"}}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "output").write_text(text)
    with pytest.raises(UserError, match="holds no latency that softedge can read"):
        read(tmp_path / "output")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")

    def work(folder: Path) -> Outcome:
        export(folder / "x", "onnx", "fp32")
        for path in (folder / "x").iterdir():
            path.rename(folder / path.name)
        (folder / "x").rmdir()
        return Outcome()

    perform(run, "export/onnx-fp32", work, recipe={}, inputs={})
    return run


def test_an_imported_row_says_that_it_was_measured_elsewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "perf.txt").write_text(PERF_TEST)
    row = bring_in(run, tmp_path / "perf.txt", "onnx-fp32", "Pixel 9 (lab)")
    assert row.stage == "bench/onnx-fp32@elsewhere_Pixel_9_lab"
    assert row.details["measured_elsewhere"] is True and row.metrics["valid"] is False
    assert row.details["tool"] == "onnxruntime_perf_test" and row.details["device"] == {"name": "Pixel 9 (lab)"}
    assert "onnxruntime_perf_test does not measure accuracy" in row.skipped["top1"]
    assert run.result(row.stage) is not None


def test_an_import_for_a_file_that_was_not_exported_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "perf.txt").write_text(PERF_TEST)
    with pytest.raises(UserError, match="did you mean 'onnx-fp32'"):
        bring_in(run, tmp_path / "perf.txt", "onnx-fp3", "Pixel 9")
    with pytest.raises(UserError, match="not a file"):
        bring_in(run, tmp_path / "nothing", "onnx-fp32", "Pixel 9")
