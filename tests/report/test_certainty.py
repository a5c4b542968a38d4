"""A file that few test images passed is not recommended with more certainty than there is."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic_run
from test_verdict import DEVICES, row

from softedge.report import cautions
from softedge.report import files as table
from softedge.report.collect import collect
from softedge.report.verdict import decide


def wilson(share: float, n: int) -> tuple[float, float]:
    """The roots of |p - share| = z sqrt(p (1 - p) / n), in p (Wilson 1927)."""
    z2 = 1.96**2
    a, b, c = n + z2, -(2 * n * share + z2), n * share**2
    return (-b - sqrt(b * b - 4 * a * c)) / (2 * a), (-b + sqrt(b * b - 4 * a * c)) / (2 * a)


def searched(n: int, default: bool, chosen: bool) -> list[dict[str, Any]]:
    """Files of a format, all of which passed; whether the search was sure of the default, and of what it made."""
    few = {"n": n, "gate_agreement": 0.98}
    return [
        row("onnx-fp32", 3.0, n=n),
        row("onnx-int8", 1.0, agreement=1 - 1 / n, sure=default, **few),
        row("onnx-int8-search", 2.0, agreement=1.0, sure=chosen, size_bytes=2_500_000, **few),
    ]


def test_of_few_test_images_the_file_that_the_search_was_sure_of_is_shipped() -> None:
    pick = decide(searched(90, False, True), DEVICES).headline
    low, high = wilson(89 / 90, 90)
    assert pick.artifact == "onnx-int8-search" and "not sure" not in pick.answer
    assert pick.reason.startswith("It has the lowest p90 of the 2 files besides ONNX int8 that passed and were timed")
    assert (
        f"the int8 search was not sure of ONNX int8 (agreement 98.9\u202f% of 90 test images, 95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}\u202f%), and was of ONNX int8-search" in pick.reason
    )


def test_images_that_calibrated_a_file_do_not_make_sure_of_it() -> None:
    found = {"file": "onnx-int8", "steps": [{"passed": True}]}
    for more, sure in (({}, True), ({"calibrated_too": True}, False)):
        result = SimpleNamespace(details={**found, **more}, metrics={"good": True})
        assert table._sure(SimpleNamespace(results={"onnx-int8": result}), "onnx-int8") == {"sure": sure}  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [40, 100])
def test_the_agreement_of_few_test_images_is_told_with_what_it_may_be_of_others(n: int) -> None:
    rows = [row("onnx-fp32", n=n), row("onnx-int8", n=n, agreement=1 - 1 / n), row("openvino-int8", n=n, agreement=1.0)]
    said = cautions._few_images({"files": rows})
    images, low = f"{n} test images", wilson(1 - 1 / n, n)[0]
    assert [line.startswith(f"Only {images}: an accuracy of") for line in said] == [True, False]
    assert said[1] == (
        f"ONNX int8 keeps {100 - 100 / n:.1f}\u202f% of fp32's answers to {images}: of others it may keep as few as "
        f"{100 * low:.0f}\u202f%."
    )
    without_labels = [{**one, "top1": None} for one in rows]
    assert cautions._few_images({"files": without_labels}) == said[1:]
    assert cautions._few_images({"files": [{**one, "n": 200} for one in rows]}) == []


def test_without_latencies_it_is_shipped_too() -> None:
    files = [{**one, "devices": {}} for one in searched(90, False, True)]
    pick = decide([one for one in files if one["precision"] != "fp32"], {}).headline
    assert pick.artifact == "onnx-int8-search"
    assert pick.reason.startswith("It is the smallest of 1 file besides ONNX int8 that passed; the int8 search was not")


@pytest.mark.parametrize("n", [40, 90, 150])
def test_where_the_search_was_sure_of_none_the_answer_says_what_it_rests_on(n: int) -> None:
    pick = decide(searched(n, False, False), DEVICES).headline
    low, high = wilson(1 - 1 / n, n)
    assert pick.artifact == "onnx-int8"
    assert pick.answer.endswith(
        f"gate passed, though the int8 search was not sure of it: agreement {100 - 100 / n:.1f}\u202f% of {n} test "
        f"images, 95 % interval {100 * low:.0f} to {100 * high:.0f}\u202f%."
    )


def test_the_searched_file_stands_in_only_where_it_passed_and_ran() -> None:
    for files in (searched(90, False, True)[:2], [*searched(90, False, True)[:2], row("onnx-int8-search", sure=True)]):
        pick = decide(files, DEVICES).headline
        assert pick.artifact == "onnx-int8" and "though the int8 search was not sure of it" in pick.answer


def test_a_file_that_the_search_was_sure_of_or_never_saw_needs_no_clause() -> None:
    for sure in (True, None):
        files = searched(90, True, True)
        files[1]["sure"] = sure
        pick = decide(files, DEVICES).headline
        assert pick.artifact == "onnx-int8" and pick.answer.endswith("gate passed.")


def test_many_test_images_decide_themselves_and_their_interval_says_whether_that_is_sure() -> None:
    assert wilson(1 - 1 / 1000, 1000)[0] > 0.98 > wilson(1 - 5 / 400, 400)[0]
    pick = decide(searched(1000, False, True), DEVICES).headline
    assert pick.artifact == "onnx-int8" and pick.answer.endswith("gate passed.")
    files = searched(400, False, True)
    files[1]["agreement"] = 1 - 5 / 400
    pick = decide(files, DEVICES).headline
    assert pick.artifact == "onnx-int8" and "though the int8 search was not sure of it: agreement 98.8" in pick.answer


def test_features_have_no_agreement_to_show() -> None:
    file = row("onnx-int8", 1.0, n=90, distance=0.001, sure=False, top1=None)
    assert decide([file], DEVICES).headline.answer.endswith("though the int8 search was not sure of it.")


@pytest.mark.parametrize(("first", "good", "file"), [(False, True, "-search"), (False, False, ""), (True, True, "")])
def test_rows_say_what_the_search_was_sure_of(first: bool, good: bool, file: str, tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    details = {"file": f"onnx-int8{file}", "steps": [{"step": "default", "passed": first}]}
    synthetic_run.result(run, "quantize/onnx-int8", {"good": good}, details=details)
    synthetic_run.result(run, "export/onnx-int8-search", {"size_bytes": 1})
    sure = {one["artifact"]: one.get("sure") for one in collect(run, layout=False)["files"]}
    assert sure["onnx-int8"] is first
    assert sure["onnx-int8-search"] is (good if file else None)
    assert sure["openvino-int8"] is False and sure["onnx-fp32"] is sure["coreml-int8"] is None
