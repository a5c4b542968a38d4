from __future__ import annotations

import json
from pathlib import Path

import pytest
from colour_model import export

from softedge.bench.imported import read
from softedge.errors import UserError
from softedge.records import Outcome
from softedge.run import Run, perform
from softedge.stages.bring_in import stage as bring_in

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
BENCHMARK_APP_TEXT = """[ INFO ] Read model took 19.75 ms
[ INFO ] Compile model took 84.66 ms
[ INFO ] First inference took 15.37 ms
[Step 11/11] Dumping statistics report
[ INFO ] Count:            3862 iterations
[ INFO ] Duration:         3004.50 ms
[ INFO ] Latency:
[ INFO ]    Median:        178.86 us
[ INFO ]    Average:       729.86 us
[ INFO ]    Min:           164.03 us
"""
# Laid out as in microsoft/onnxruntime#2798, ARM-software/ComputeLibrary#850 and, for the old words, onnxruntime#17313.
PERF_TEST = """Setting intra_op_num_threads to 1
Session creation time cost: 0.0425 s
First inference time cost: 7 ms
Total inference time cost: 12.5 s
Total inference requests: 2500
Average inference time cost: 5 ms
Total inference run time: 12.6 s
Number of inferences per second: 198.4
Avg CPU usage: 49 %
Peak working set size: 41943040 bytes
Avg CPU usage:49
Min Latency: 0.0045 s
Max Latency: 0.0215 s
P50 Latency: 0.0048 s
P90 Latency: 0.0061 s
P95 Latency: 0.0072 s
P99 Latency: 0.0104 s
P999 Latency: 0.0201 s
"""
PERF_TEST_OLD = """Total time cost: 12.5
Total iterations: 2500
Average time cost: 5 ms
Total run time: 12.6 s
Min Latency is 0.0045 sec
P50 Latency is 0.0048 sec
P90 Latency is 0.0061 sec
P99 Latency is 0.0104 sec
"""
# The C++ tool and older releases print the statistics without "[ INFO ]".
BENCHMARK_APP_CPP = """Count:      900 iterations
Duration:   9009.00 ms
Latency:
    Median:     9.75 ms
    Average:    10.01 ms
    Min:        9.50 ms
    Max:        14.25 ms
Throughput: 99.90 FPS
"""
# Laid out as in tensorflow/tensorflow#73862 and #42507.
LITERT = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [model.tflite]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 4.25ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=40 first=14000 curr=12100 min=11900 max=14000 avg=12300.5 std=310

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=80 first=12200 curr=12050 min=11800 max=13000 avg=12100.5 std=120 p5=11850 median=12090 p95=12400

INFO: Inference timings in us: Init: 4250, First inference: 14000, Warmup (avg): 12300.5, Inference (avg): 12100.5
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual.
INFO: Peak memory footprint (MB): init=1.5 overall=12.5
"""
# Laid out as before 2019, yuenshome/yuenshome.github.io#77.
LITERT_OLD = """Initialized session in 4.25ms
count=7 first=24000 curr=12700 min=12600 max=24000 avg=14100 std=900
count=15 first=12500 curr=12400 min=12300 max=12900 avg=12450 std=39
Average inference timings in us: Warmup: 14100, Init: 4250, no stats: 12450
"""
# An assumption: Apple documents that the report tells these, not in which words or order.
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
            {"p50_ms": 0.17886, "mean_ms": 0.72986, "min_ms": 0.16403, "n": 3862, "load_ms": 104.41, "first_ms": 15.37},
        ),
        (
            BENCHMARK_APP_CPP,
            "OpenVINO benchmark_app",
            {"p50_ms": 9.75, "mean_ms": 10.01, "min_ms": 9.5, "n": 900},
        ),
        (
            PERF_TEST,
            "onnxruntime_perf_test",
            {
                "mean_ms": 5.0,
                "min_ms": 4.5,
                "p50_ms": 4.8,
                "p90_ms": 6.1,
                "p99_ms": 10.4,
                "n": 2500,
                "load_ms": 42.5,
                "first_ms": 7.0,
                "peak_memory_bytes": 40 << 20,
            },
        ),
        (
            PERF_TEST_OLD,
            "onnxruntime_perf_test",
            {"mean_ms": 5.0, "min_ms": 4.5, "p50_ms": 4.8, "p90_ms": 6.1, "p99_ms": 10.4, "n": 2500},
        ),
        (
            LITERT,
            "LiteRT benchmark_model",
            {
                "mean_ms": 12.1005,
                "min_ms": 11.8,
                "p50_ms": 12.09,
                "n": 80,
                "load_ms": 4.25,
                "first_ms": 14.0,
                "peak_memory_bytes": 12.5 * 1024 * 1024,
            },
        ),
        (
            LITERT.replace("Peak memory footprint", "Memory footprint delta from the start of the tool"),
            "LiteRT benchmark_model",
            {"mean_ms": 12.1005, "min_ms": 11.8, "p50_ms": 12.09, "n": 80, "load_ms": 4.25, "first_ms": 14.0},
        ),
        (LITERT_OLD, "LiteRT benchmark_model", {"mean_ms": 12.45, "min_ms": 12.3, "n": 15, "load_ms": 4.25}),
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


@pytest.mark.parametrize(
    ("number", "others", "milliseconds"),
    [
        ("0,84 ms", "", 0.84),
        ("0,234 ms", "", 0.234),  # nobody writes 0,234 for 234
        ("1234,567 µs", "", 1.234567),
        ("1,234.5 µs", "", 1.2345),
        ("1.234,5 µs", "", 1.2345),
        ("1,234,567 µs", "", 1234.567),
        ("1.234 ms", "", 1.234),
        ("84 \N{GREEK SMALL LETTER MU}s", "", 0.084),
        ("1,234 µs", "Load 95.2 ms", 1.234),
        ("1,234 ms", "Load 95,2 ms", 1.234),
        ("1.234 µs", "Load 95,2 ms", 1.234),
        ("1,234 µs", "Size 4.7 MB", 1.234),
    ],
)
def test_commas_and_points_are_read_as_the_file_has_them(
    tmp_path: Path, number: str, others: str, milliseconds: float
) -> None:
    (tmp_path / "a.txt").write_text(f"Prediction {number}\n{others}\n")
    assert read(tmp_path / "a.txt").metrics["p50_ms"] == pytest.approx(milliseconds)


@pytest.mark.parametrize("others", ["", "Load 1,500 ms", "Load 95,2 ms\nCompilation 1.5 s"])
def test_a_number_that_may_be_of_two_sizes_is_refused(tmp_path: Path, others: str) -> None:
    (tmp_path / "a.txt").write_text(f"Prediction 1,234 µs\n{others}\n")
    with pytest.raises(UserError, match=r"a.txt: '1,234' may be 1234 or 1.234; write 1234, or 1.234 with a point"):
        read(tmp_path / "a.txt")


ONE_AT_A_TIME = {"batch size": "1", "number of parallel infer requests": "1"}


@pytest.mark.parametrize(
    ("options", "setup", "words"),
    [
        ({"-b": "8"}, {}, "batches of 8 images"),
        ({}, {**ONE_AT_A_TIME, "batch size": "8"}, "batches of 8 images"),
        ({"-hint": "latency"}, {**ONE_AT_A_TIME, "number of parallel infer requests": "4"}, "4 requests at a time"),
        ({"-nireq": "2"}, {}, "2 requests at a time"),
        ({"-hint": "throughput"}, {}, "with the hint throughput"),
        ({"-hint": "tput"}, {}, "with the hint tput"),
    ],
)
def test_what_was_not_one_image_at_a_time_is_refused(
    tmp_path: Path, options: dict[str, str], setup: dict[str, str], words: str
) -> None:
    """Keys as benchmark_app of OpenVINO 2026.4 writes them."""
    (tmp_path / "a.json").write_text(
        json.dumps({**BENCHMARK_APP, "cmd_options": options, "configuration_setup": setup})
    )
    with pytest.raises(UserError, match=f"measured {words}, .*; measure again with -b 1 -hint latency"):
        read(tmp_path / "a.json")
    fine = {**BENCHMARK_APP, "cmd_options": {"-b": "1", "-hint": "latency"}, "configuration_setup": ONE_AT_A_TIME}
    (tmp_path / "a.json").write_text(json.dumps(fine))
    assert read(tmp_path / "a.json").metrics["p50_ms"] == 0.18


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[ INFO ] Model batch size: 8", "batches of 8 images"),
        ("[ INFO ]   PERFORMANCE_HINT: THROUGHPUT", "with the hint throughput"),
        ("(Start inference asynchronously, 2 inference requests, limits: 1000 ms duration)", "2 requests at a time"),
    ],
)
def test_the_same_of_what_benchmark_app_prints(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "a.txt").write_text(f"{line}\n{BENCHMARK_APP_TEXT}")
    with pytest.raises(UserError, match=f"measured {words}"):
        read(tmp_path / "a.txt")
    alone = (
        "[ INFO ] Model batch size: 1\n[ INFO ]   PERFORMANCE_HINT: LATENCY\n(Start inference synchronously, limits:"
    )
    (tmp_path / "a.txt").write_text(f"{alone}\n{BENCHMARK_APP_TEXT}")
    assert read(tmp_path / "a.txt").metrics["n"] == 3862


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


def test_a_row_from_xcode_says_that_its_layout_is_an_assumption(run: Run, tmp_path: Path) -> None:
    (tmp_path / "xcode.txt").write_text(XCODE)
    row = bring_in(run, tmp_path / "xcode.txt", "onnx-fp32", "iPhone 15 Pro")
    assert row.details["caveat"].startswith("Apple publishes no format of Xcode's report")
    assert row.details["imported"]["compute_units_named"] == ["Neural Engine", "GPU", "CPU"]


def test_an_import_for_a_file_that_was_not_exported_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "perf.txt").write_text(PERF_TEST)
    with pytest.raises(UserError, match="did you mean 'onnx-fp32'"):
        bring_in(run, tmp_path / "perf.txt", "onnx-fp3", "Pixel 9")
    with pytest.raises(UserError, match="not a file"):
        bring_in(run, tmp_path / "nothing", "onnx-fp32", "Pixel 9")


@pytest.mark.parametrize("name", ["other.onnx", "C:\\models\\other.onnx", "runs/a/export/onnx-int8/model.onnx"])
def test_the_output_for_another_model_file_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    perform(run, "export/onnx-int8", lambda folder: Outcome(), recipe={}, inputs={})

    def outputs(name: str) -> list[str]:
        return [
            json.dumps({**BENCHMARK_APP, "cmd_options": {"-m": name}}),
            LITERT.replace("model.tflite", name),
        ]

    for text, fine in zip(outputs(name), outputs("/data/local/model.onnx")):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(
            UserError, match="measured .*, and onnx-fp32 is onnx-fp32/model.onnx; measure that file, or"
        ):
            bring_in(run, tmp_path / "a.txt", "onnx-fp32", "Pixel 9")
        (tmp_path / "a.txt").write_text(fine)
        bring_in(run, tmp_path / "a.txt", "onnx-fp32", "Pixel 9", force=True)


def test_devices_whose_names_are_not_ascii_or_long_have_a_row_each(run: Run, tmp_path: Path) -> None:
    (tmp_path / "perf.txt").write_text(PERF_TEST)
    names = ["日本", "中国", "Handy von Jörg", "Handy von Jürg", "a" * 300, "a" * 301]
    folders = {bring_in(run, tmp_path / "perf.txt", "onnx-fp32", name).stage for name in names}
    assert len(folders) == len(names) and all(len(folder) < 120 for folder in folders)


@pytest.mark.parametrize("cost", ["-5 s", "0 s", "1e300 s"])
def test_what_cannot_be_a_latency_is_refused(tmp_path: Path, cost: str) -> None:
    """A report with a latency of 1e303 ms ended in a traceback."""
    (tmp_path / "a.txt").write_text(f"Average inference time cost: {cost}\n")
    with pytest.raises(UserError, match="onnxruntime_perf_test says .*, which is no latency or count"):
        read(tmp_path / "a.txt")


def test_output_that_powershell_has_saved_is_read(tmp_path: Path) -> None:
    (tmp_path / "utf16.txt").write_bytes(PERF_TEST.encode("utf-16"))
    (tmp_path / "utf8.json").write_bytes(json.dumps(BENCHMARK_APP).encode("utf-8-sig"))
    assert read(tmp_path / "utf16.txt").tool == "onnxruntime_perf_test"
    assert read(tmp_path / "utf8.json").tool == "OpenVINO benchmark_app"
