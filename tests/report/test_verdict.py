from __future__ import annotations

from typing import Any

import pytest

from softedge.report import cautions, timings
from softedge.report.verdict import decide

DEVICES = {"local": "this machine"}


def row(artifact: str, p90: float | None = None, gate: str = "passed", **more: Any) -> dict[str, Any]:
    target, _, precision = artifact.rpartition("-")
    timing = {} if p90 is None else {"local": {"p90_ms": p90, "valid": True}}
    base = {"size_bytes": 2_000_000, "top1": 0.96, "drop": 0.0, "n": 1000}
    return (
        {"artifact": artifact, "target": target, "precision": precision, "gate": gate, "devices": timing} | base | more
    )


def test_the_fastest_file_that_passed_is_shipped() -> None:
    pick = decide([row("onnx-fp32", 2.0), row("onnx-int8", 1.0), row("openvino-fp32", 1.5)], DEVICES).headline
    assert (pick.status, pick.artifact, pick.device) == ("ship", "onnx-int8", "local")
    assert "96.0\u202f% on 1\u202f000 test images" in pick.answer
    assert "1.00\u202fms" in pick.answer and "2.00\u202fMB" in pick.answer and "gate passed" in pick.answer
    assert "2.0\u202f× as fast as ONNX fp32" in pick.reason


def test_a_faster_file_that_failed_the_gate_is_not_shipped() -> None:
    failed = row("openvino-int8", 0.5, "failed", why="agreement 0.9 is below 0.98")
    pick = decide([row("onnx-fp32", 2.0), failed], DEVICES).headline
    assert pick.artifact == "onnx-fp32"
    assert "OpenVINO int8 failed the gate" in pick.reason


def test_of_two_files_as_fast_as_each_other_the_smaller_is_shipped() -> None:
    rows = [row("onnx-fp32", 1.00, size_bytes=4_000_000), row("onnx-int8", 1.03, size_bytes=1_000_000)]
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "onnx-int8"
    assert "ONNX fp32 is not measurably faster than ONNX int8, the smallest of these (1.00\u202fMB)" in pick.reason


@pytest.mark.parametrize(("different", "shipped"), [(True, "onnx-fp32"), (False, "onnx-int8")])
def test_a_measured_paired_ratio_decides_what_counts_as_equally_fast(different: bool, shipped: str) -> None:
    rows = [row("onnx-fp32", 1.00, size_bytes=4_000_000), row("onnx-int8", 1.03, size_bytes=1_000_000)]
    rows[1]["devices"]["local"]["ratios"] = {
        "onnx-fp32": {"ratio": 1.03, "low": 1.01, "high": 1.05, "different": different}
    }
    assert decide(rows, DEVICES).headline.artifact == shipped


def test_a_file_that_was_faster_side_by_side_is_not_beaten_by_a_lucky_p90() -> None:
    rows = [row("onnx-fp32", 1.00, size_bytes=4_000_000), row("onnx-int8", 1.40, size_bytes=1_000_000)]
    rows[1]["devices"]["local"]["ratios"] = {"onnx-fp32": {"ratio": 0.7, "low": 0.6, "high": 0.8, "different": True}}
    assert decide(rows, DEVICES).headline.artifact == "onnx-int8"


@pytest.mark.parametrize(
    ("different", "said"), [(True, "It is the fastest of the 2 files"), (None, "It has the lowest p90 of the 2 files")]
)
def test_only_an_interval_makes_a_file_the_fastest(different: bool | None, said: str) -> None:
    rows = [row("onnx-fp32", 2.0), row("onnx-int8", 1.0)]
    pair = {"ratio": 2.0, "low": 1.9 if different else None, "high": 2.1 if different else None, "different": different}
    rows[0]["devices"]["local"]["ratios"] = {"onnx-int8": pair}
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "onnx-int8" and pick.reason.startswith(said)
    assert ("too few paired rounds" in pick.reason) == (different is None)


def test_a_smaller_file_that_is_as_fast_is_not_called_the_fastest() -> None:
    rows = [row("openvino-fp32", 1.5, size_bytes=4_000_000), row("openvino-fp16", 1.0, size_bytes=1_000_000)]
    pair = {"ratio": 0.99, "low": 0.98, "high": 1.0, "different": True}  # by medians it is even faster
    rows[0]["devices"]["local"]["ratios"] = {"openvino-fp16": pair}
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "openvino-fp16"
    assert pick.reason == (
        "OpenVINO fp16 is the smallest of the fastest: OpenVINO fp32 is not measurably slower or faster."
    )


def equally_fast(first: bool = True, **larger: Any) -> list[dict[str, Any]]:
    rows = [
        row("onnx-fp32", 3.0, size_bytes=18_000_000),
        row("openvino-int8", 1.0, size_bytes=5_050_000, sqnr_db=26.0),
        row("onnx-int8", 1.0, **{"size_bytes": 5_060_000, "sqnr_db": 27.2, **larger}),
    ]
    rows[2]["devices"]["local"]["p90_ms"] = 0.99 if first else 1.01
    rows[1]["devices"]["local"]["ratios"] = {"onnx-int8": {"ratio": 1.0, "low": 0.98, "high": 1.02, "different": False}}
    rows[0]["devices"]["local"]["ratios"] = {"onnx-int8": {"ratio": 3.0, "low": 2.9, "high": 3.1, "different": True}}
    return rows


def test_of_equally_fast_files_of_one_size_the_nearest_to_fp32_is_shipped() -> None:
    pick = decide(equally_fast(), DEVICES).headline
    assert pick.artifact == "onnx-int8"
    assert pick.reason.startswith(
        "ONNX int8 is the smallest of the fastest, to within 0.2\u202f%, and of those the nearest to fp32: OpenVINO "
        "int8 is not measurably slower or faster; ONNX int8 is 3.0\u202f× as fast as ONNX fp32"
    )
    assert decide(equally_fast(first=False), DEVICES).headline.reason == (
        "OpenVINO int8 is not measurably faster than ONNX int8, the smallest of these (5.06\u202fMB), to within "
        "0.2\u202f%, and of those the nearest to fp32."
    )


@pytest.mark.parametrize("larger", [{"size_bytes": 5_200_000}, {"sqnr_db": 25.9}, {"sqnr_db": None}])
def test_a_larger_or_no_nearer_file_is_not(larger: dict[str, Any]) -> None:
    pick = decide(equally_fast(**larger), DEVICES).headline
    assert pick.artifact == "openvino-int8" and "to within" not in pick.reason


def test_speeds_are_compared_side_by_side_where_that_was_measured() -> None:
    rows = [row("onnx-fp32", 9.0), row("onnx-int8", 1.0)]
    rows[0]["devices"]["local"]["ratios"] = {"onnx-int8": {"ratio": 1.5, "low": 1.4, "high": 1.6, "different": True}}
    assert "1.5\u202f× as fast as ONNX fp32" in decide(rows, DEVICES).headline.reason


def test_int8_that_is_smaller_but_slower_is_named_as_the_price() -> None:
    rows = [row("onnx-fp32", 1.0, size_bytes=4_000_000), row("onnx-int8", 1.25, size_bytes=1_000_000)]
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "onnx-fp32"
    assert "ONNX int8 is smaller (1.00\u202fMB) but takes 1.2\u202f× as long" in pick.reason


def test_a_file_that_is_hardly_smaller_is_no_price() -> None:
    rows = [row("openvino-int8", 1.0, size_bytes=3_740_000), row("openvino-int8-search", 1.2, size_bytes=3_730_000)]
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "openvino-int8" and "smaller" not in pick.reason


def test_nothing_is_shipped_when_every_gate_failed() -> None:
    rows = [row("onnx-int8", 1.0, "failed", why="agreement 0.5 is below 0.98")]
    pick = decide(rows, DEVICES).headline
    assert (pick.status, pick.artifact) == ("nothing passed", "")
    assert pick.answer.startswith("Ship nothing")
    assert "agreement 0.5 is below 0.98" in pick.reason


def test_failed_files_with_the_same_reason_share_it() -> None:
    names = [f"{target}-{precision}" for target in ("onnx", "openvino", "coreml") for precision in ("fp32", "int8")]
    low = "top-1 0.4{0} is below the least accuracy 0.9"
    rows = [row(name, gate="failed", why=low.format(number)) for number, name in enumerate(names)]
    assert decide(rows, {}).headline.reason == "All 6 failed (top-1 0.40 to 0.45 is below the least accuracy 0.9)."
    rows[1]["why"] = "agreement 0.5 is below 0.98; " + rows[1]["why"]
    rows[3]["why"] = "agreement 0.7 is below 0.98"
    assert decide(rows, {}).headline.reason == (
        "ONNX fp32, ONNX int8, OpenVINO fp32, Core ML fp32 and Core ML int8 failed "
        "(top-1 0.40 to 0.45 is below the least accuracy 0.9); "
        "ONNX int8 and OpenVINO int8 failed (agreement 0.5 to 0.7 is below 0.98)."
    )
    rows = [row(name, gate="failed", why=f"reason {'abcdef'[number]}") for number, name in enumerate(names)]
    assert decide(rows, {}).headline.reason.endswith("OpenVINO fp32 failed (reason c); 3 more failed.")


def test_nothing_is_shipped_to_a_device_where_only_failed_files_ran() -> None:
    rows = [row("coreml-fp32"), row("onnx-int8", 1.0, "failed", why="too wrong")]
    pick = decide(rows, DEVICES).headline
    assert (pick.status, pick.device) == ("nothing passed", "local")


def test_without_latencies_the_smallest_passing_file_is_named_with_that_reservation() -> None:
    pick = decide([row("onnx-fp32"), row("onnx-int8", size_bytes=700_000)], {}).headline
    assert (pick.status, pick.artifact) == ("ship, not timed", "onnx-int8")
    assert "nothing is known about its speed" in pick.reason


def test_unchecked_files_are_not_shipped_however_fast() -> None:
    pick = decide([row("onnx-fp32", 1.0, "not run")], DEVICES).headline
    assert (pick.status, pick.artifact) == ("not checked", "")


def test_an_empty_run_says_what_to_do() -> None:
    pick = decide([], {}).headline
    assert pick.status == "nothing exported"
    assert "softedge export" in pick.reason


def test_an_invalid_measurement_is_used_only_when_there_is_no_valid_one_and_is_said() -> None:
    rows = [row("onnx-fp32", 2.0), row("onnx-int8", 1.0)]
    rows[1]["devices"]["local"] |= {"valid": False, "why_not_valid": "12 samples, the quick preset wants 64"}
    assert decide(rows, DEVICES).headline.artifact == "onnx-fp32"
    rows[0]["devices"]["local"] |= {"valid": False, "why_not_valid": "too short"}
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "onnx-int8"
    assert "12 samples, the quick preset wants 64" in pick.reason


@pytest.mark.parametrize(
    "trouble",
    [{"agreement_local": 0.78}, {"quality": {"passed": {"98%": False, "99%": False}}}],
    ids=["other answers than here", "below 98 % of fp32 there"],
)
def test_a_file_that_answers_otherwise_on_the_device_is_not_shipped_to_it(trouble: dict[str, Any]) -> None:
    rows = [row("onnx-fp32", 2.0), row("onnx-int8", 1.0)]
    rows[1]["devices"]["local"] |= trouble
    pick = decide(rows, DEVICES).headline
    assert pick.artifact == "onnx-fp32"
    assert "ONNX int8 passed the gate but gives different answers there" in pick.reason


def in_bf16(agreement: float | None, top1: float | None, n: int = 1000) -> list[dict[str, Any]]:
    """fp32 and fp16 files of top-1 92.5 % in the check; the fp16 file was timed in bf16."""
    checked = {"top1": 0.925, "top1_fp32": 0.925, "n": n, "gate_floor": 0.915, "gate_agreement": 0.98}
    rows = [row("openvino-fp32", 2.8, **checked), row("openvino-fp16", 1.2, **checked)]
    answers = {"top1": top1, "n_images": n, "agreement_local": agreement, "n_compared": n}
    rows[1]["devices"]["local"] |= {k: value for k, value in answers.items() if value is not None}
    rows[1]["devices"]["local"]["effective_precision"] = "bf16"
    return rows


def test_the_headline_has_the_accuracy_of_the_computation_that_was_timed() -> None:
    pick = decide(in_bf16(0.985, 0.92), DEVICES).headline
    assert pick.artifact == "openvino-fp16"
    assert "top-1 92.0\u202f% on 1\u202f000 test images there, computed in bf16" in pick.answer
    assert (
        "(in the check 92.5\u202f%, 98.5\u202f% of the answers the same)" in pick.answer and "lost" not in pick.answer
    )


@pytest.mark.parametrize(
    ("agreement", "top1", "n", "why"),
    [
        (0.919, 0.925, 1000, "91.9\u202f% are those of the check, computed in bf16; the gate asks for 98.0\u202f%"),
        (0.985, 0.910, 1000, "top-1 91.0\u202f%, computed in bf16; the gate asks for 91.5\u202f%"),
        (0.95, 0.90, 40, "95.0\u202f% are those of the check"),
        (0.975, 0.90, 40, ""),  # one answer of 40, as in the check
    ],
)
def test_another_precision_is_held_to_the_gates_of_the_check(agreement: float, top1: float, n: int, why: str) -> None:
    pick = decide(in_bf16(agreement, top1, n), DEVICES).headline
    assert pick.artifact == ("openvino-fp32" if why else "openvino-fp16")
    assert not why or f"OpenVINO fp16 passed the gate but gives different answers there ({why}" in pick.reason


def test_an_accuracy_that_was_not_measured_in_that_precision_is_said_to_be_the_checks() -> None:
    answer = decide(in_bf16(None, None), DEVICES).headline.answer
    assert "top-1 92.5\u202f% on 1\u202f000 test images in the check, not measured in bf16," in answer
    old = decide(in_bf16(None, 0.92), DEVICES).headline.answer  # its check kept no answers
    assert "top-1 92.0\u202f%" in old and "agreement not known" in old


@pytest.mark.parametrize(("drop", "said"), [(0.0, "none lost on these"), (1 / 37, "2.7 points below fp32")])
def test_of_few_test_images_the_headline_says_what_they_can_show(drop: float, said: str) -> None:
    answer = decide([row("onnx-fp32", 1.0, n=37, top1=34 / 37, drop=drop)], DEVICES).headline.answer
    # Wilson 1927, 34 of 37: (0.9189 + 0.0519) / 1.1038 ± 0.0925
    assert f"{said}; so few show an accuracy to about ± 9.3 points" in answer
    assert "no accuracy lost" not in answer


def test_answers_that_are_the_checks_are_not_judged_twice() -> None:
    """One right answer fewer than fp32 of 37: the check let it pass, and the device gives the very same answers."""
    rows = [row("onnx-fp32", 2.0), row("onnx-int8", 1.0, n=37)]
    lost = {"top1_fp32": 36 / 37, "ratio": 35 / 36, "passed": {"98%": False}}
    rows[1]["devices"]["local"] |= {"agreement_local": 1.0, "top1": 35 / 37, "n_images": 37, "quality": lost}
    assert decide(rows, DEVICES).headline.artifact == "onnx-int8"


def test_each_device_gets_its_own_answer() -> None:
    rows = [row("onnx-fp32", 1.0), row("onnx-int8", 2.0)]
    rows[0]["devices"]["board"] = {"p90_ms": 90.0, "valid": True}
    rows[1]["devices"]["board"] = {"p90_ms": 30.0, "valid": True}
    picks = decide(rows, {"local": "this machine", "board": "the board"}).picks
    assert [(p.device, p.artifact) for p in picks] == [("local", "onnx-fp32"), ("board", "onnx-int8")]


def test_the_answer_is_one_sentence_and_the_reason_another() -> None:
    for rows in ([row("onnx-fp32", 1.0), row("onnx-int8", 0.5)], [row("onnx-fp32")], [row("onnx-fp32", 1.0, "failed")]):
        pick = decide(rows, DEVICES).headline
        for sentence in (pick.answer, pick.reason):
            assert sentence.endswith(".")
            assert ". " not in sentence


def measured(device: str, p50: float, p90: float, **more: object) -> dict[str, object]:
    return {device: {"p50_ms": p50, "p90_ms": p90, "valid": True, **more}}


CALLED = {"browser": "a browser", "local": "this machine", "phone": "the phone"}
KINDS_OF = {"browser": "a browser on a computer", "local": "this computer", "phone": "a device"}


def first(**timings: dict[str, object]) -> tuple[str, str]:
    """The device of the headline and why, for one file measured on all devices."""
    only = row("onnx-fp32") | {
        "devices": {name: timing for entry in timings.values() for name, timing in entry.items()}
    }
    decided = decide([only], {name: CALLED[name] for name in timings}, kinds=KINDS_OF)
    return decided.picks[0].device, decided.why_first


def test_the_headline_is_about_the_phone_where_there_is_one() -> None:
    timings = {name: measured(name, 1.0, 1.1) for name in ("browser", "local", "phone")}
    device, why = first(**timings)
    assert device == "phone" and "a separate device" in why


def test_a_disturbed_or_invalid_measurement_does_not_get_the_headline() -> None:
    noisy = {"browser": measured("browser", 1.0, 6.0), "local": measured("local", 1.0, 1.1)}
    device, why = first(**noisy)
    assert device == "local" and "disturbed (p90 6.0" in why
    device, why = first(**noisy, phone=measured("phone", 1.0, 1.1, valid=False))
    assert device == "local" and "the phone is closer to where an app runs, but its latencies are not valid" in why


def test_when_nothing_was_measured_soundly_the_headline_says_so() -> None:
    device, why = first(local=measured("local", 1.0, 9.0), phone=measured("phone", 1.0, 5.0))
    assert device == "phone" and "no device gave a sound measurement" in why


def test_a_ratio_of_paired_rounds_says_so_where_the_p90s_beside_it_have_another() -> None:
    """Of a busy machine: 6.73 / 5.02 is 1.3, side by side it was 2.8."""
    rows = [row("onnx-fp32") | {"devices": measured("local", 2.65, 6.73)}]
    rows += [row("onnx-int8") | {"devices": measured("local", 1.02, 5.02)}]
    assert "1.3\u202f× as fast as ONNX fp32 by p90" in decide(rows, DEVICES).headline.reason
    pair = {"ratio": 2.8, "low": 2.6, "high": 3.2, "different": True}
    rows[0]["devices"]["local"]["ratios"] = {"onnx-int8": pair}
    pick = decide(rows, DEVICES).headline
    assert "2.8\u202f× as fast as ONNX fp32 in paired rounds" in pick.reason
    assert "p90 latency 5.02\u202fms (disturbed by other work)" in pick.answer


@pytest.mark.parametrize(
    ("device", "command"),
    [
        ({"address": "local", "preset": "quick"}, "run: softedge bench runs/mine --devices local --force"),
        (
            {"address": "ssh://pi@board?python=python3", "preset": "standard"},
            "run: softedge bench runs/mine --devices 'ssh://pi@board?python=python3' --preset standard --force",
        ),
        ({"address": "iPhone", "kind": "elsewhere"}, "measure again"),
    ],
)
def test_the_caution_on_a_disturbed_measurement_ends_in_the_command_that_repeats_it(device, command) -> None:
    run = {"folder": "runs/mine", "devices": {"place": {"short": "it", **device}}, "recipe": {}}
    (said,) = cautions._disturbed(run | {"files": [{"devices": measured("place", 1.0, 4.9)}]})
    assert said.endswith(f"when the device is idle, {command}") and "4.9\u202f× p50 (1 of 1 file)" in said
    assert cautions._disturbed(run | {"files": [{"devices": measured("place", 1.0, 1.9)}]}) == []


def test_one_device_needs_no_reason_for_standing_first() -> None:
    assert first(local=measured("local", 1.0, 1.1)) == ("local", "")


@pytest.mark.parametrize(("p90", "said"), [(1.9, False), (2.1, True)])
def test_the_table_of_timings_follows_the_rule_of_the_caution(p90: float, said: bool) -> None:
    run = {"files": [row("onnx-fp32") | {"devices": measured("local", 1.0, p90)}], "verdict": {"picks": []}}
    ((cell,),) = (cells for title, cells in timings.rows(run, "local") if title == "preset kept")
    assert ("disturbed: p90 2.1" in cell) == said
