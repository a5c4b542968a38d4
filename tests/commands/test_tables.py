"""What the terminal says after a command."""

import json

import pytest

from softedge.commands import tables
from softedge.records import Result


def test_a_number_is_read_with_its_unit():
    metrics = {
        "top1": 0.5,
        "voc07_AP50": 0.4,
        "gain_low": -0.25,
        "probe_gap": 0.125,
        "peak_memory_bytes": 76_959_744,
        "seconds": 7.659,
        "n": 3,
    }
    result = Result("x", "run", metrics, {}, {}, {}, "", 0.0, {})
    assert tables.stage(result).splitlines() == [
        "x  top1               50.0 %",
        "x  voc07_AP50         40.0 %",
        "x  gain_low           -25.0 points",
        "x  probe_gap          +12.5 points",
        "x  peak_memory_bytes  76.96 MB",
        "x  seconds            7.7 s",
        "x  n                  3",
    ]


@pytest.mark.parametrize(
    ("metrics", "details", "title"),
    [
        ({"epochs": 0}, {}, "starting weights"),
        ({"epochs": 3}, {"kept": "start"}, "starting weights"),
        ({"epochs": 3}, {"kept": "trained"}, "pretrained"),
        ({"epochs": 3}, {}, "pretrained"),
    ],
)
def test_features_that_were_never_pretrained_are_not_called_so(metrics, details, title):
    result = Result("pretrain", "run", metrics, {}, {}, {}, "", 0.0, details)
    assert tables.features_of(result) == title


def test_a_loss_that_rounds_to_nothing_has_no_sign():
    assert tables.number("drop", -0.0001) == "0.0 %" and tables.number("drop", -0.012) == "-1.2 %"


def test_a_row_that_the_report_calls_disturbed_is_not_called_valid():
    calm, busy, short = (
        Result(f"bench/onnx-{name}@local", "r", {"p50_ms": 1.0, "p90_ms": p90, "valid": valid}, {}, {}, {}, "", 1.0)
        for name, p90, valid in (("fp32", 1.9, True), ("int8", 2.1, True), ("fp16", 9.0, False))
    )
    rows = {line.split()[0]: line.split()[-1] for line in tables.timings([calm, busy, short]).splitlines()[1:]}
    assert rows == {"onnx-fp32@local": "yes", "onnx-int8@local": "disturbed", "onnx-fp16@local": "no"}
    (said,) = tables.disturbed([calm, busy, short])
    assert "1 of 3 rows" in said and "--force" in said and not tables.disturbed([calm])


def test_the_table_of_timings_fits_a_terminal_and_begins_with_the_headline():
    metrics = {"size_bytes": 13_540_000, "agreement_local": 1.0, "top1": 0.65, "n_images": 476, "p50_ms": 40.12}
    metrics |= {"p90_ms": 41.5, "p99_ms": 144.2, "mean_ms": 40.8, "min_ms": 39.9, "n": 13644, "load_ms": 325.95}
    metrics |= {"first_ms": 103.4, "valid": True, "peak_memory_bytes": 143_230_000, "end_to_end_p90_ms": 55.5}
    rows = [Result(f"bench/openvino-int8-search@{d}", "r", metrics, {}, {}, {}, "", 1.0) for d in ("local", "ssh_pi")]
    first, *others = tables.timings(rows).splitlines()
    assert first.split() == ["p90", "p50", "samples", "top-1", "as", "checked", "size", "valid"]
    assert others[0].split()[:3] == ["openvino-int8-search@local", "41.50", "ms"] and len(others) == 2
    assert max(map(len, (first, *others))) <= 100
    answers = Result("bench/onnx-int8@emulated", "r", {"top1": 0.6, "changed": 0.1}, {}, {}, {}, "", 1.0)
    assert tables.timings([*rows, answers]).splitlines()[-1].split() == ["onnx-int8@emulated", "60.0", "%", "0.1"]


def test_the_verdict_is_a_line_and_every_caution_another(tmp_path):
    picks = [
        {"answer": "Do not ship ONNX int8 yet: the network gets 43.3\u202f% right.", "reason": "Label more."},
        {"answer": "Ship it to a board.", "reason": "It is fast there."},
    ]
    values = {"runs": [{"verdict": {"picks": picks, "cautions": ["Only 60 test images.", "Two\nlines."]}}, {}]}
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert tables.verdict(tmp_path) == [
        "verdict: Do not ship ONNX int8 yet: the network gets 43.3 % right. Label more.",
        "caution: Only 60 test images.",
        "caution: Two\\nlines.",
    ]


def test_a_command_in_a_caution_names_the_run_where_it_is(tmp_path):
    root = tmp_path / "my run"
    root.mkdir()
    picks = [{"answer": "Ship it.", "reason": "It is the fastest."}]
    again = "softedge bench 'my run' --devices local"
    run = {"folder": "my run", "verdict": {"picks": picks, "cautions": [f"Disturbed; run: {again} --force"]}}
    (root / "report.json").write_text(json.dumps({"runs": [run]}))
    assert tables.verdict(root)[1] == f"caution: Disturbed; run: softedge bench '{root}' --devices local --force"
    run["folder"] = "runs/my run"  # relative: as the command was given
    (root / "report.json").write_text(json.dumps({"runs": [run]}))
    assert again in tables.verdict(root)[1]


def test_the_table_of_timings_says_once_that_there_are_no_labels():
    bare = "not run: no labelled test images"
    rows = [
        Result(f"bench/{name}@local", "r", {"p90_ms": 1.0}, {}, {}, {}, "", 1.0, {}, {"top1": bare, **more})
        for name, more in (("onnx-fp32", {}), ("onnx-int8", {"end_to_end": "not run: no samples"}))
    ]
    absent = Result(
        "bench/coreml-fp32@local", "r", {}, {}, {}, {}, "", 1.0, {}, {"latency": "no Mac", "top1": "no Mac"}
    )
    lines = [line for line in tables.timings([*rows, absent]).splitlines() if line.startswith("not run")]
    assert lines == [
        "not run: top-1: no labelled test images",
        "not run: end to end of onnx-int8@local: no samples",
        "not run: coreml-fp32@local: no Mac",
    ]
    assert tables.timings(rows[:1]).splitlines()[-1] == "not run: top-1 of onnx-fp32@local: no labelled test images"
