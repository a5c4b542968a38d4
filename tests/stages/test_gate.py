"""The gates that need several stages: judged anew from what was checked and benched last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import softedge
from softedge import config, previous
from softedge.errors import GateFailed, UserError, exit_code_and_line
from softedge.export import listed, measured
from softedge.export.refused import by_reason
from softedge.report import report
from softedge.run import Run, write_json
from softedge.stages import gate, kept


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two checked files, the int8 one timed on two devices; the results are written by hand."""
    run = Run(tmp_path / "run")
    recipe = config.build({"export": {"targets": ["onnx"], "precisions": ["fp32", "int8"]}})
    run.root.mkdir()
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    rows = [
        {
            "artifact": "onnx-fp32",
            "target": "onnx",
            "precision": "fp32",
            "sha256": "a",
            "size_bytes": 4,
            "passed": True,
            "why": "",
        },
        {
            "artifact": "onnx-int8",
            "target": "onnx",
            "precision": "int8",
            "sha256": "b",
            "size_bytes": 1,
            "passed": True,
            "why": "",
        },
    ]
    write(
        run, "check", {"passed": True, "files": 2, "files_passed": 2, "files_failed": 0}, {"rows": rows, "failed": []}
    )
    for name in ("onnx-fp32", "onnx-int8"):
        write(run, f"export/{name}", {"size_bytes": 10}, {"sha256": "a" if name == "onnx-fp32" else "b"})
    timed(run, "onnx-fp32@local", "a", 90.0)
    timed(run, "onnx-int8@local", "b", 2.0)
    timed(run, "onnx-int8@phone", "b", 8.0)
    return run


def write(run: Run, stage: str, metrics: dict, details: dict, skipped: dict | None = None) -> None:
    values = {"stage": stage, "name": run.name, "started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "recipe": {}}
    values |= {"inputs": {}, "environment": {}, "metrics": metrics, "details": details, "skipped": skipped or {}}
    write_json(run.folder(stage) / "result.json", values)
    if stage.startswith("export/"):
        (run.folder(stage) / "contract.json").unlink(missing_ok=True)
        if not skipped:
            write_json(run.folder(stage) / "contract.json", {"sha256": details.get("sha256")})


def timed(run: Run, name: str, sha256: str, p90: float) -> None:
    write(run, f"bench/{name}", {"p50_ms": p90, "p90_ms": p90, "valid": True}, {"sha256": sha256, "device": {}})


def test_a_file_that_is_too_slow_on_one_device_fails_by_name_with_the_numbers(run):
    softedge.gate(run.root, max_p90=10.0)
    with pytest.raises(GateFailed, match=r"^onnx-int8: p90 8.00 ms on phone above the limit of 5 ms$"):
        softedge.gate(run.root, max_p90=5.0)
    with pytest.raises(GateFailed, match=r"p90 2.00 ms on local and p90 8.00 ms on phone"):
        softedge.gate(run.root, max_p90=1.0)


def test_a_limit_that_is_set_for_this_command_decides_its_exit_code(run):
    gate.gate(run, set=["check.max_p90=10"])
    with pytest.raises(GateFailed, match="^onnx-int8: p90 8.00 ms on phone above the limit of 5 ms$"):
        gate.gate(run, set=["check.max_p90=5"])
    gate.gate(run)


@pytest.mark.parametrize(
    ("limit", "value", "refused", "remedy"),
    [
        ("min_accuracy", 0.95, {"top1": 0.9}, "0.95; to remove it: {} --min-accuracy 0"),
        ("max_size", 5, {"too_large": True}, "5; to remove it: {} --max-size 0"),
        ("max_p90", 5.0, {}, "5.0; to remove it: {} --max-p90 0"),
        ("max_drop", 0.0, {"drop": 0.005}, "0.0; for the default: {} --max-drop 0.01"),
        ("min_agreement", 1.0, {"agreement": 0.99}, "1.0; for the default: {} --min-agreement 0.98"),
    ],
)
def test_a_limit_that_the_run_keeps_is_named_with_the_way_to_remove_it_where_it_refuses(
    run, limit, value, refused, remedy
):
    limits = config.Check(**{limit: value})
    checked = run.result("check").to_dict()
    checked["recipe"] = {"check": limits.model_dump(mode="json")}
    row = checked["details"]["rows"][1]
    row.update(refused)
    if refused and limit != "min_accuracy":
        row.update(passed=False)
        checked["details"]["failed"] = ["onnx-int8: refused"]
    write_json(run.folder("check") / "result.json", checked)
    recipe = config.load(str(run.root / "recipe.toml")).model_copy(update={"check": limits})
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    with pytest.raises(GateFailed) as failed:
        softedge.gate(run.root)
    said = f"the run keeps --{limit.replace('_', '-')} {remedy.format(f'softedge deploy --out {run.root}')}"
    assert str(failed.value).endswith(said) and str(failed.value).count("the run keeps") == 1
    if limit == "max_p90":
        with pytest.raises(GateFailed) as failed:  # a limit of this command alone
            softedge.gate(run.root, max_p90=6.0)
        assert "the run keeps" not in str(failed.value)


def test_a_start_says_what_is_kept_of_earlier_ones_and_was_not_given_again(run):
    sets = ["finetune.epochs=3", "check.max_drop=0.5"]
    early = kept.asked(sets, minutes=30, targets=["onnx"], precisions=None, max_mb=4)
    assert early == {"--minutes": "30", "--targets": "onnx", "--max-mb": "4"} | {
        "--set finetune.epochs": "3",
        "--set check.max_drop": "0.5",
    }
    limits = config.Check(max_drop=0.5, max_size=4_000_000, min_accuracy=0.95)
    kept.keep(run, early)
    assert [*kept.lines(run, limits, early | kept.asked((), min_accuracy=0.95))] == []
    assert [*kept.lines(run, limits, kept.asked((), targets=["ncnn"]))] == [
        f"{run.root} resumes as it was begun, with --minutes 30, --max-mb 4, --set finetune.epochs=3; to start anew, "
        "give another --out",
        "limit kept from an earlier start: --min-accuracy 0.95 (--min-accuracy 0 removes it)",
        "limit kept from an earlier start: --max-drop 0.5 (--max-drop 0.01 is the default)",
        "limit kept from an earlier start: --max-size 4000000 (--max-size 0 removes it)",
    ]
    (run.root / "asked.json").write_text("[")
    assert len([*kept.lines(run, limits, {})]) == 3


def test_files_with_the_same_reason_share_a_line():
    few = "of 40 images; test on more images, or allow more with --max-drop"
    lines = [
        "onnx-fp32: top-1 0.8811 is below the least accuracy 0.9",
        f"onnx-int8: agreement 0.95 is below 0.98 (2 {few}); top-1 0.8790 is below the least accuracy 0.9",
        f"openvino-int8: agreement 0.925 is below 0.98 (3 {few}); p90 8.00 ms on ssh://pi@10.0.0.2",
        "coreml-fp16: top-1 0.8811 is below the least accuracy 0.9",
        "ncnn-int8 was not made: no ncnn; install it",
        "ncnn-fp16 was not made: no ncnn; install it",
        "litert-int8 is missing; bring it back, or make it again: softedge export runs/1",
        "ncnn-int8 is missing; bring it back, or make it again: softedge export runs/1",
    ]
    assert by_reason(lines) == [
        "onnx-fp32, onnx-int8, coreml-fp16: top-1 0.8790 to 0.8811 is below the least accuracy 0.9",
        f"onnx-int8, openvino-int8: agreement 0.925 to 0.95 is below 0.98 (2 to 3 {few})",
        "openvino-int8: p90 8.00 ms on ssh://pi@10.0.0.2",
        "ncnn-int8, ncnn-fp16 were not made: no ncnn; install it",
        "litert-int8, ncnn-int8 are missing; bring them back, or make them again: softedge export runs/1",
    ]
    assert exit_code_and_line(GateFailed(*by_reason(lines[:1]), "two\nlines")) == (
        1,
        "failed: onnx-fp32: top-1 0.8811 is below the least accuracy 0.9\nfailed: two\\nlines",
    )


def test_new_latencies_are_seen_without_checking_again(run):
    timed(run, "onnx-int8@phone", "b", 4.0)
    softedge.gate(run.root, max_p90=5.0)
    timed(run, "onnx-int8@phone", "b", 6.0)
    with pytest.raises(GateFailed, match="6.00 ms on phone"):
        softedge.gate(run.root, max_p90=5.0)


def test_latencies_of_another_file_of_that_name_do_not_count(run):
    timed(run, "onnx-int8@phone", "an older file", 99.0)
    softedge.gate(run.root, max_p90=5.0)


def test_what_was_found_of_a_file_that_is_gone_decides_nothing(run):
    with pytest.raises(GateFailed, match="8.00 ms on phone"):
        softedge.gate(run.root, max_p90=5.0)
    previous.retire(run.root, "export/onnx-int8")
    softedge.gate(run.root, max_p90=5.0)
    judged = gate.judged(run, config.Check(max_p90=5.0))
    assert [row["artifact"] for row in judged.details["rows"]] == ["onnx-fp32"] and judged.metrics["files"] == 1
    assert {*measured.timed(run.results("bench"), measured.files(run))} == {"onnx-fp32@local"}
    write(run, "export/onnx-fp32", {"size_bytes": 10}, {"sha256": "another"})
    with pytest.raises(
        GateFailed, match=f"^onnx-fp32 was replaced since it was checked; run: softedge check {run.root}$"
    ):
        softedge.gate(run.root)


def test_a_refused_file_counts_again_where_the_one_in_its_place_is_gone(run):
    done = run.result("check")
    fp32, int8 = done.details["rows"]
    instead = {**int8, "artifact": "onnx-int8-search"}
    refused = {**int8, "passed": False, "why": "agreement", "superseded_by": "onnx-int8-search"}
    done = dataclasses.replace(done, details={"rows": [fp32, refused, instead], "failed": []})
    found = measured.checked(done, measured.files(run))
    assert found.details["failed"] == ["onnx-int8: agreement"]
    assert (found.metrics["passed"], found.metrics["files_passed"], found.metrics["files_failed"]) == (False, 1, 1)


def test_a_device_that_cannot_time_a_file_is_not_to_be_asked_again(run):
    (run.folder("bench/onnx-int8@phone") / "result.json").unlink()
    write(run, "bench/onnx-int8@local", {}, {"sha256": "b"}, {"latency": "not run: it runs on macOS only"})
    unjudged = gate.judged(run, config.Check(max_p90=5.0)).skipped["max_p90 onnx-int8"]
    assert unjudged == "max_p90: onnx-int8 could not be timed on local: it runs on macOS only"


def test_a_time_above_the_limit_that_other_work_disturbed_says_so_and_how_to_measure_it_again(run):
    details = {"sha256": "b", "device": {}}
    write(run, "bench/onnx-int8@phone", {"p50_ms": 3.0, "p90_ms": 8.0, "valid": True}, details)
    again = rf"disturbed by other work; .* run: softedge bench {run.root} --devices phone --force"
    with pytest.raises(GateFailed, match=again):
        softedge.gate(run.root, max_p90=5.0)
    timed(run, "onnx-int8@phone", "b", 8.0)
    with pytest.raises(GateFailed, match="limit of 5 ms$"):
        softedge.gate(run.root, max_p90=5.0)


def test_a_file_that_was_not_timed_is_said_to_be_unjudged(run):
    for device in ("local", "phone"):
        (run.folder(f"bench/onnx-int8@{device}") / "result.json").unlink()
    verdict = gate.judged(run, config.Check(max_p90=5.0))
    assert "was not timed" in verdict.skipped["max_p90 onnx-int8"] and verdict.metrics["passed"]


def test_the_reasons_of_check_and_bench_stand_together(run):
    path = run.folder("check") / "result.json"
    checked = json.loads(path.read_text())
    checked["details"]["rows"][1] |= {"passed": False, "why": "agreement 0.5 is below 0.98"}
    checked["details"]["failed"] = ["onnx-int8: agreement 0.5 is below 0.98"]
    path.write_text(json.dumps(checked))
    with pytest.raises(GateFailed, match=r"^onnx-int8: agreement 0.5 is below 0.98\nonnx-int8: p90 8.00 ms on phone"):
        softedge.gate(run.root, max_p90=5.0)


def test_a_refused_file_that_nobody_asked_for_is_a_caution_where_another_of_its_format_passed(run, capsys):
    path = run.folder("check") / "result.json"
    checked = json.loads(path.read_text())
    rows = checked["details"]["rows"]
    rows[1] |= {"passed": False, "why": "agreement 0.5 is below 0.98"}
    rows.append({**rows[1], "artifact": "onnx-int8-search", "precision": "int8-search"})
    write(run, "export/onnx-int8-search", {"size_bytes": 10}, {"sha256": "b"})
    checked["details"]["failed"] = [f"{row['artifact']}: {row['why']}" for row in rows[1:]]
    path.write_text(json.dumps(checked))
    with pytest.raises(GateFailed, match="^onnx-int8, onnx-int8-search: agreement 0.5 is below 0.98$"):
        softedge.gate(run.root)
    recipe = config.load(str(run.root / "recipe.toml"))
    recipe = recipe.model_copy(update={"check": config.Check(optional=("int8",))})
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    softedge.gate(run.root)
    said = capsys.readouterr().err
    assert said.count("caution: onnx-int8, onnx-int8-search: ") == 1 and "agreement 0.5 is below 0.98" in said
    with pytest.raises(GateFailed, match=r"^onnx-int8: agreement 0.5 is below 0.98\nonnx-int8: p90 8.00 ms on phone"):
        softedge.gate(run.root, max_p90=5.0)  # a limit that somebody set
    with pytest.raises(GateFailed, match="^onnx-int8, onnx-int8-search: agreement 0.5 is below 0.98$"):
        softedge.gate(run.root, strict=True)
    rows[1]["too_large"] = True
    path.write_text(json.dumps(checked))
    with pytest.raises(GateFailed, match="^onnx-int8: agreement 0.5 is below 0.98$"):
        softedge.gate(run.root)
    rows[1].pop("too_large")
    rows[0] |= {"passed": False, "why": "max_abs_diff 1"}
    checked["details"]["failed"].insert(0, "onnx-fp32: max_abs_diff 1")
    path.write_text(json.dumps(checked))
    with pytest.raises(GateFailed, match="^onnx-fp32: max_abs_diff 1\nonnx-int8, "):  # nothing of the format is left
        softedge.gate(run.root)


def test_a_file_that_a_better_one_stands_in_for_is_not_judged(run):
    path = run.folder("check") / "result.json"
    checked = json.loads(path.read_text())
    checked["details"]["rows"][1] |= {"passed": False, "why": "x", "superseded_by": "onnx-int8-search"}
    path.write_text(json.dumps(checked))
    softedge.gate(run.root, max_p90=5.0)


def test_a_file_that_could_not_be_made_fails_unless_it_may_be_missing(run):
    write(run, "export/onnx-int8", {}, {}, {"model": "exporting to ONNX needs onnx"})
    with pytest.raises(GateFailed, match=r"^onnx-int8 was not made: exporting to ONNX needs onnx$"):
        softedge.gate(run.root)
    softedge.gate(run.root, allow_missing=True)


def test_a_file_that_the_export_refused_has_the_consequence_of_one_that_check_refused(run, capsys):
    recipe = config.load(str(run.root / "recipe.toml"))
    recipe = recipe.model_copy(update={"check": config.Check(optional=("int8",))})
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    write(run, "export/onnx-int8", {}, {"refused": True}, {"model": "most weights stayed in float"})
    gate.gate(run)
    exports = [run.need(f"export/onnx-{precision}", "export") for precision in ("fp32", "int8")]
    gate.require(run.root, exports)
    line = "caution: onnx-int8 was not made: most weights stayed in float; other files of the format "
    said = capsys.readouterr().err
    assert f"{line}passed" in said and f"{line}were made" in said
    for refused in (
        lambda: gate.gate(run, strict=True),  # somebody set a limit
        lambda: gate.require(run.root, exports, asked=True),
        lambda: gate.require(run.root, exports[1:]),  # no other file of the format
    ):
        with pytest.raises(GateFailed, match="^onnx-int8 was not made: most weights stayed in float$"):
            refused()
    write(run, "export/onnx-int8", {}, {}, {"model": "RuntimeError: no kernel"})  # not refused: it could not be made
    with pytest.raises(GateFailed, match="no kernel"):
        gate.gate(run)


def test_an_export_that_was_interrupted_and_one_that_is_gone_fail_whatever_may_be_missing(run, capsys):
    """check asks with ``allow_missing``: not for what nobody has made yet, but for what was begun or there before."""
    shutil.rmtree(run.folder("export/onnx-fp32"))
    (run.folder("export/onnx-int8") / "result.json").rename(run.folder("export/onnx-int8") / "begun.json")
    (run.folder("export/onnx-int8") / "contract.json").unlink()
    again = f"run: softedge export {run.root}"
    gone = f"onnx-fp32 is missing; bring it back, or make it again: softedge export {run.root}"
    for allow_missing in (False, True):
        with pytest.raises(GateFailed, match=f"^onnx-int8 was not made: its export was interrupted; {again}\n{gone}$"):
            gate.gate(run, allow_missing=allow_missing)
    capsys.readouterr()
    softedge.report(run.root)
    assert f"caution: {gone}" in capsys.readouterr().err
    with run.locked():  # somebody may be making it
        softedge.report(run.root)
    assert "caution" not in capsys.readouterr().err
    for stage in ("check", "bench"):
        shutil.rmtree(run.folder(stage))
    with pytest.raises(GateFailed, match=f"^onnx-int8 [^;]*; {again}$"):  # fp32 may never have been asked for
        gate.gate(run, allow_missing=True)


@pytest.mark.parametrize("left", [None, "result.json", "golden"])
def test_a_file_that_an_export_added_is_missed_like_those_of_the_recipe(run, capsys, left):
    """Whatever is left of its folder, and though no other stage has seen it."""
    folder = run.folder("export/openvino-w8a8")
    write(run, "export/openvino-w8a8", {"size_bytes": 10}, {"sha256": "c"})
    listed.add(run, "openvino-w8a8")
    gate.gate(run, allow_missing=True)
    (folder / "golden").write_text("")
    for path in folder.iterdir():
        if path.name != left:
            path.unlink()
    if left is None:
        folder.rmdir()
    again = f"softedge export {run.root} --targets openvino --precisions w8a8"
    without = f"to do without it, take it out of {run.root}/exported.json"
    line = f"openvino-w8a8 is missing; bring it back, or make it again: {again}; {without}"
    for allow_missing in (False, True):
        with pytest.raises(GateFailed) as failed:
            gate.gate(run, allow_missing=allow_missing)
        assert str(failed.value) == line
    if left is None:
        with contextlib.suppress(UserError):  # the contracts are written by hand
            softedge.report(run.root)
        assert f"caution: {line}" in capsys.readouterr().err
        rows = json.loads((run.root / "report.json").read_text())["runs"][0]["files"]
        assert {row["artifact"]: row["gate"] for row in rows}["openvino-w8a8"] == "not run"
    listed.remove(run, "openvino-w8a8")
    if left != "result.json":
        gate.gate(run, allow_missing=True)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_of_the_recipe_is_missed_where_its_contract_alone_is_gone(run, precision):
    (run.folder(f"export/onnx-{precision}") / "contract.json").unlink()
    gone = f"^onnx-{precision} is missing; bring it back, or make it again: softedge export {run.root}$"
    with pytest.raises(GateFailed, match=gone):
        gate.gate(run, allow_missing=True)


def test_what_was_tried_once_and_is_not_in_the_recipe_is_not_asked_for(run):
    write(run, "export/litert-fp32", {}, {}, {"model": "no environment"})
    softedge.gate(run.root)


def test_the_report_calls_a_slow_file_failed_as_long_as_it_is_judged_so(run):
    recipe = config.load(str(run.root / "recipe.toml"))

    def gate_of(limit: float) -> str:
        gate.stage(run, recipe.model_copy(update={"check": config.Check(max_p90=limit)}), None)
        report([run])
        rows = json.loads((run.root / "report.json").read_text())["runs"][0]["files"]
        return {row["artifact"]: row["gate"] for row in rows}["onnx-int8"]

    assert [gate_of(5.0), gate_of(10.0), gate_of(0.0)] == ["failed", "passed", "passed"]


def test_check_with_a_limit_is_strict_also_where_the_comparison_was_done_before(run, monkeypatch):
    from softedge.cli import main
    from softedge.stages import check

    path, asked = run.folder("check") / "result.json", []
    monkeypatch.setattr(check, "check", lambda *given, **more: run.result("check"))
    monkeypatch.setattr(gate, "gate", lambda *given, strict, set, **more: asked.append((strict, set)))
    assert path.exists()
    for options in ([], ["--min-agreement", "0.98"], ["--set", "check.max_drop=0.01"], ["--set", "seed=1"]):
        with pytest.raises(SystemExit):
            main(["check", str(run.root), *options])
    assert [strict for strict, _ in asked] == [False, True, True, False]
    assert [*asked[2][1]] == ["check.max_drop=0.01"]


def test_fp16_and_int8_are_optional_until_somebody_asks_for_it_or_sets_a_limit():
    from softedge.stages.gate import optional_precisions

    default = config.build({})
    assert optional_precisions(default, False, ()) == ("fp16", "int8") and optional_precisions(default, True, ()) == ()
    assert optional_precisions(default, False, ["check.optional=[]"]) is None
    assert optional_precisions(config.build({"export": {"precisions": ["int8"]}}), False, ()) is None
    before = config.build({"check": {"optional": ["int8"]}})  # a run that is deployed again
    assert optional_precisions(before, False, ()) is None and optional_precisions(before, True, ()) == ()


def test_latency_is_judged_on_the_file_that_was_timed_and_of_int8_alone(run):
    def refused(artifact: str, precision: str, limit: float, sha256: str = "b") -> tuple[list[str], str | None]:
        row = {"artifact": artifact, "precision": precision, "sha256": sha256}
        return gate.too_slow(run, row, config.Check(max_p90=limit))

    assert refused("onnx-int8", "int8", 5.0) == (["p90 8.00 ms on phone above the limit of 5 ms"], None)
    assert refused("onnx-int8", "int8", 10.0) == ([], None)
    assert refused("onnx-int8", "int8", 0.0) == ([], None)
    assert refused("onnx-fp32", "fp32", 2.0, "a") == ([], None)
    assert "was not timed" in str(refused("onnx-int8", "int8", 5.0, "of another file")[1])
    assert "was not timed" in str(refused("onnx-w8a16", "w8a16", 5.0)[1])


@pytest.mark.parametrize(
    ("noise", "kept", "refused"), [(8.9, 0.6, True), (19.9, 0.97, True), (20.1, 0.6, False), (8.9, 0.99, False)]
)
@pytest.mark.parametrize("precision", ["int8", "int8-strict", "w8a16", "fp16"])
def test_an_export_that_is_noisy_and_loses_answers_is_refused_at_once(run, noise, kept, refused, precision) -> None:
    write(run, f"export/onnx-{precision}", {"sqnr_db": noise, "agreement": kept, "n": 40}, {})
    exported = [run.need(f"export/onnx-{precision}", "export")]
    if not refused or precision == "fp16":
        return gate.require_close(run.root, exported)
    with pytest.raises(GateFailed, match=f"onnx-{precision} has {kept:.1%} .* on 40 images; .* softedge quantize"):
        gate.require_close(run.root, exported)
    return None


def test_an_export_is_not_refused_where_the_search_has_found_a_better_file(run) -> None:
    write(run, "export/onnx-int8", {"sqnr_db": 8.9, "agreement": 0.6, "n": 40}, {})
    exported = [run.need("export/onnx-int8", "export")]
    write(run, "quantize/onnx-int8", {}, {"file": "onnx-int8"})
    with pytest.raises(GateFailed):
        gate.require_close(run.root, exported)
    write(run, "quantize/onnx-int8", {}, {"file": "onnx-int8-search"})
    gate.require_close(run.root, exported)
