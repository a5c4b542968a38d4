from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_run

from softedge import previous
from softedge.report import cautions, compare, few, gains, phrases, report, trained, verdict, words
from softedge.report.collect import _without_places, collect, without_folders
from softedge.report.curves import curve
from softedge.report.devices import kind
from softedge.report.predictions import confusion
from softedge.report.write import gather
from softedge.run import Run, read_json, write_json
from softedge.stages.classifier import best


@pytest.mark.parametrize(("trained_at", "said"), [(64, True), (160, False)])
def test_pixels_that_the_minutes_left_are_a_caution_unless_the_run_has_others(trained_at: int, said: bool) -> None:
    few = "planned at 64 of 224 pixels because of --minutes 3: more minutes are likely to be worth more"
    run = {"plan": {"few_pixels": few, "values": {"data.size": 64}}, "recipe": {"data": {"size": trained_at}}}
    assert cautions._few_pixels(run) == ([f"P{few[1:]}."] if said else [])
    assert cautions._few_pixels({"plan": {}, "recipe": {}}) == [], "a run of an earlier version, or without a plan"


def test_every_sample_is_in_the_histogram(full: Run) -> None:
    for row in collect(full, layout=False)["files"]:
        for device, timing in row["devices"].items():
            samples = read_json(full.folder(f"bench/{row['artifact']}@{device}") / "samples.json")["samples_ms"]
            edges, counts = timing["histogram"]["edges_ms"], timing["histogram"]["counts"]
            assert sum(counts) == len(samples)
            assert edges[0] < min(samples) and max(samples) < edges[-1]
            expected, _ = np.histogram(samples, edges)
            assert np.abs(expected - counts).sum() <= 2  # edges are rounded in the file


def test_a_row_joins_export_check_and_measurement_of_the_same_file(full: Run) -> None:
    row = next(r for r in collect(full, layout=False)["files"] if r["artifact"] == "openvino-int8")
    assert row["sha256"] == row["devices"]["local"]["sha256"] == synthetic_run.digest("openvino-int8")
    assert (row["size_bytes"], row["gate"], row["n"]) == (800_000, "passed", 120)
    assert row["top1_fp32"] - row["top1"] == row["drop"]
    assert row["gate_floor"] == row["top1_fp32"] - 0.01


def test_a_file_that_was_changed_between_check_and_bench_is_a_caution(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    path = run.folder("bench/onnx-int8@local") / "result.json"
    stored = read_json(path)
    stored["details"]["sha256"] = "0" * 64
    write_json(path, stored)
    found = collect(run, layout=False)
    said = cautions.cautions_of(found)
    assert any("ONNX int8 on local: the file that was timed is not the file that is there; run:" in s for s in said)
    row = next(row for row in found["files"] if row["artifact"] == "onnx-int8")
    assert row["devices"] == {} and row["gate"] == "passed", "its latency is another file's, and decides nothing"
    others = [other["devices"].get("local", {}).get("ratios", {}) for other in found["files"]]
    assert not any("onnx-int8" in ratios for ratios in others)


def test_latencies_of_several_sessions_are_a_caution(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    assert not any("another session" in line for line in cautions.cautions_of(collect(run, layout=False)))
    path = run.folder("bench/onnx-int8@local") / "result.json"
    stored = read_json(path)
    stored["details"]["session"] = "later"
    write_json(path, stored)
    found = collect(run, layout=False)
    (said,) = [line for line in cautions.cautions_of(found) if "another session" in line]
    assert said == (
        "ONNX int8 on local was timed in another session than the other files, and the latencies may not compare; "
        "run: softedge bench run --devices local --force"
    )
    row = next(row for row in found["files"] if row["artifact"] == "onnx-int8")
    assert "ratios" not in row["devices"]["local"], "not of the same rounds"


def test_measurements_of_files_that_are_gone_count_nowhere(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    before = collect(run, layout=False)
    assert {"openvino-int8", "coreml-int8"} <= {row["artifact"] for row in before["files"] if row["gate"] != "not run"}
    previous.retire(run.root, "export/openvino-int8")  # a new network, and the files of the old one are set aside
    shutil.rmtree(run.folder("export/coreml-int8"))
    found = collect(run, layout=False)
    rows = {row["artifact"]: row for row in found["files"]}
    for name in ("openvino-int8", "coreml-int8"):
        assert rows[name]["gate"] == "not run" and rows[name]["devices"] == {} and "top1" not in rows[name]
        assert all(name not in example["predictions"] for example in found["examples"])
    again = "softedge export run --targets openvino --precisions int8"
    assert rows["openvino-int8"]["not_run"] == {
        "export": f"set aside when the network changed; export again with: {again}"
    }
    assert rows["coreml-int8"]["not_run"]["export"] == words.NOT_TRIED
    counted = found["check"]["metrics"]
    assert (counted["files"], counted["files_passed"], counted["files_failed"], counted["passed"]) == (7, 7, 0, True)
    said = verdict._remarks(found["files"], "local")
    assert f"OpenVINO int8 was set aside when the network changed (export again with: {again})" in said
    assert "Core ML int8 was not exported" in said and "could not be exported" not in said


def test_pretraining_that_bought_nothing_is_a_caution(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run")
    path = run.folder("probe") / "result.json"
    stored = read_json(path)
    for key in ("linear_top1", "knn_top1", "few_linear_top1"):
        stored["metrics"][key] = stored["metrics"][f"random_{key}"] - 0.01
    write_json(path, stored)
    assert any(s.startswith("Pretraining did not help here") for s in cautions.cautions_of(collect(run, layout=False)))


def test_no_caution_says_that_nothing_was_gained_beside_a_lead_that_says_what_was() -> None:
    metrics = {"linear_top1": 0.833, "knn_top1": 0.944, "few_linear_top1": 0.789}
    metrics |= {"random_linear_top1": 0.278, "random_knn_top1": 0.611, "random_few_linear_top1": 0.5}
    kinds = [key for key in metrics if not key.startswith("random_")]
    intervals = {"linear_top1": [0.2, 0.8], "knn_top1": [0.0, 0.55], "few_linear_top1": [0.04, 0.48]}
    probe = {"metrics": metrics, "few_labels_per_class": 10, "gain_intervals": intervals}
    probe["gains"] = {key: metrics[key] - metrics[f"random_{key}"] for key in kinds}
    run = {"probe": probe, "pretrain": {"kept": "start"}, "recipe": {}}
    assert "a linear classifier gains 28.9 points" in gains.learning_lead(run).striptags()
    assert cautions._no_better_than_random(run) == [], "of the k-NN alone it is not clear"
    probe["gain_intervals"] = {key: [-0.1, 0.55] for key in kinds}
    assert cautions._no_better_than_random(run)[0].startswith("It is not clear that the starting weights helped here")
    probe["gain_intervals"] = intervals | {"knn_top1": [-0.4, -0.1]}
    assert cautions._no_better_than_random(run) == [
        "The starting weights did not help the k-NN here: 94.4\u202f%, with random weights 61.1\u202f% "
        "(95 % \u221240.0 to \u221210.0 points)."
    ]


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([-0.02, 0.05], "It is not clear that pretraining helped here: the linear probe reaches"),
        ([-0.06, -0.01], "Pretraining did not help here: the linear probe reaches"),
        ([0.01, 0.05], None),
    ],
)
def test_a_gain_within_the_noise_of_the_test_images_is_a_caution(tmp_path, interval, said):
    run = synthetic_run.make(tmp_path / "run")
    path = run.folder("probe") / "result.json"
    stored = read_json(path)
    stored["details"]["gain_intervals"] = dict.fromkeys(("knn_top1", "linear_top1", "few_linear_top1"), interval)
    write_json(path, stored)
    values = collect(run, layout=False)
    assert values["probe"]["gain_intervals"]["linear_top1"] == interval
    found = [sentence for sentence in cautions.cautions_of(values) if "with random weights" in sentence]
    assert [sentence.split(" reaches")[0] + " reaches" for sentence in found] == ([said] if said else [])
    lead = str(gains.learning_lead(values))
    assert ("gains nothing clear" in lead) == (interval[0] <= 0 <= interval[1])
    assert "(95 %" in lead


def test_few_test_images_are_a_caution_with_the_wilson_interval() -> None:
    low, high = few.interval(0.9, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)  # Wilson 1927, as in R's binom.confint


def test_a_cell_that_was_not_measured_has_a_reason_and_no_number(full: Run) -> None:
    for row in collect(full, layout=False)["files"]:
        for device in ("local", "ssh_pi_board"):
            if device not in row["devices"]:
                assert row["target"] == "coreml"
                assert "Apple" in row["not_run"][f"latency on {device}"]


def test_where_the_images_lie_stays_out_of_the_report(full: Run) -> None:
    assert str(full.root / "images") not in (full.root / "report.json").read_text()


def test_confusion_counts_truth_by_row_and_answer_by_column() -> None:
    found = confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), ["a", "b", "c"])
    assert found["matrix"] == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert found["pairs"] == [{"truth": "a", "answer": "c", "images": 1}]
    assert found["per_class"][0] == {"class": "a", "n": 2, "right": 1}


def test_a_long_curve_is_averaged_down_and_keeps_its_end() -> None:
    rows = [{"epoch": i / 10, "loss": float(i % 2)} for i in range(2000)]
    points = curve(rows, "loss")
    assert len(points) <= 240
    assert points[-1][0] == 199.9
    assert all(0.4 < value < 0.6 for _, value in points[:-1])


def test_comparing_a_run_with_itself_finds_nothing(full: Run) -> None:
    assert compare(full, full).endswith("no differences")


def test_comparing_two_runs_names_what_changed(tmp_path: Path) -> None:
    a = synthetic_run.make(tmp_path / "a")
    b = synthetic_run.make(tmp_path / "b", seed=1, speed=2.0, without=("probe",))
    text = compare(a, b)
    assert "seed: 0 -> 1" in text
    assert "linear probe: 97.5\u202f% -> absent" in text
    assert "ONNX fp32: p90 on local" in text
    assert "top-1" not in text  # the same files with the same accuracy


def test_comparing_runs_says_when_they_were_tested_on_different_images(tmp_path: Path) -> None:
    a, b = (synthetic_run.make(tmp_path / name) for name in "ab")
    assert "no differences" in compare(a, b)
    path = b.folder("data") / "index.json"
    index = json.loads(path.read_text())
    tested = [row for row in index["items"] if row["split"] == "test"]
    count, first = len(tested), tested[0]["sha256"]
    tested[0] |= {"sha256": "1" * 64, "original": first}  # a smaller copy of the same photo
    path.write_text(json.dumps(index))
    assert "no differences" in compare(a, b)
    tested[1]["sha256"] = "2" * 64
    path.write_text(json.dumps(index))
    expected = f"the test images differ, so accuracies are not comparable: {count - 1} of {count} are in both runs"
    assert expected in compare(a, b) and expected.split(":")[0] in str(gather([a, b])["changes"])


def test_the_model_card_has_front_matter_that_yaml_reads(full: Run) -> None:
    card = (full.root / "MODEL_CARD.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert "pipeline_tag: image-classification" in front
    assert front.count("- type: accuracy") == 9
    assert "| OpenVINO int8 | 0.80" in body
    assert "Not run: latency, top-1 on local" in body
    program = re.findall(r"^python export/([\w-]+)/snippets/run.py photo.jpg$", body, re.MULTILINE)
    picks = json.loads((full.root / "report.json").read_text())["runs"][0]["verdict"]["picks"]
    assert program == [picks[0]["artifact"]]


def test_class_names_are_shown_in_the_model_card_as_they_are(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt()
    run = synthetic_run.make(tmp_path / "run")
    path = run.folder("data") / "result.json"
    values = json.loads(path.read_text())
    names = [
        "two\nlines",
        "<i>tilted</i>",
        "*bold*",
        "a_b_c",
        "_under_",
        "[x](http://y.test)",
        "a|b",
        "back\\slash",
        "`x`",
        "&lt;",
    ]
    values["details"]["classes"] = names
    values["details"]["notices"] = ["classes that differ: <b>x</b>\n| and 'X'"]
    path.write_text(json.dumps(values))
    report([run])
    page = markdown.render((run.root / "MODEL_CARD.md").read_text())
    shown = html.unescape(page)
    assert f"<p>Classes: {', '.join(names).replace(chr(10), ' ')}</p>" in shown
    assert "<i>" not in page and "<b>" not in page and "<em>" not in page and "<a " not in page


def test_commands_are_told_as_they_were_typed_without_the_places_of_folders(full: Run) -> None:
    performed = collect(full, layout=False)["provenance"]["performed"]
    assert [entry["command"] for entry in performed] == ["softedge deploy --data 'my photos' --out runs/full"]
    assert {"pretrain", "bench"} <= set(performed[0]["stages"])


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("softedge report /srv/runs/a ./b/c ../d/e f/g", "softedge report a c e f/g"),
        ("softedge bench r --devices 'ssh://pi@board:22?config=/home/a/c&python=/opt/p/python3'", None),
        ("softedge deploy --data ~/photos/cats", "softedge deploy --data cats"),
    ],
)
def test_places_of_folders_are_left_out_of_a_command_and_addresses_stay(typed: str, shown: str | None) -> None:
    expected = shown or "softedge bench r --devices 'ssh://pi@board:22?config=c&python=python3'"
    assert _without_places(typed) == expected


def test_paths_in_a_recipe_are_shown_by_their_last_part():
    recipe = {"data": {"source": "/home/ann/photos/", "size": 96}, "distill": {"teacher": "C:\\runs\\big"}}
    recipe |= {"finetune": {"init": "~/weights.pth", "files": ["/a/b", "imagenet"]}, "name": "a/b", "rate": "1/2"}
    assert without_folders(recipe) == {
        "data": {"source": "photos", "size": 96},
        "distill": {"teacher": "big"},
        "finetune": {"init": "weights.pth", "files": ["b", "imagenet"]},
        "name": "a/b",
        "rate": "1/2",
    }


@pytest.mark.parametrize(
    ("address", "about", "what"),
    [
        ("local:threads=2", {}, "this computer"),
        ("ssh://pi@127.0.0.1:22", {}, "this computer"),
        ("ssh://pi@[::1]", {}, "this computer"),
        ("ssh://pi@board", {}, "a device"),
        ("browser", {"user_agent": "X11; Linux HeadlessChrome"}, "a browser on a computer"),
        ("browser", {"user_agent": "Android 14; Mobile"}, "a device"),
        ("adb://R58M", {}, "a device"),
        ("adb://R58M", {"emulated": True}, "an emulator"),
        ("emulated:arm64", {}, "an emulator"),
        ("pinned:3", {"kind": "this computer"}, "this computer"),
        ("pinned:3", {"kind": "a toaster"}, "a device"),
    ],
)
def test_what_a_device_is_follows_from_its_address_and_what_it_tells(address: str, about: dict, what: str) -> None:
    assert kind(address, about) == what


def test_clocks_and_temperature_of_the_measurement_are_told(full: Run) -> None:
    said = phrases.device_lead(collect(full, layout=False), "local")
    assert "clocks 1900 to 2000 before and 1800 to 2000 after MHz" in said
    assert "51 before and 63 after °C, throttling: light" in said


def test_detection_and_the_comparison_of_checks_are_on_the_page(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", extras=True)
    text = report([run]).read_text()
    assert "AP50 of each class" in text and "&lt;b&gt;cat&lt;/b&gt;" in text
    assert "Against the check of last week" in text and "+2.5" in text


def test_images_that_a_stage_was_done_without_are_a_caution_and_a_difference(tmp_path: Path) -> None:
    a, b = (synthetic_run.make(tmp_path / name) for name in ("a", "b"))
    path = b.folder("probe") / "result.json"
    values = json.loads(path.read_text())
    values["details"]["set_aside"] = {"test": {"n": 1, "of": 400, "names": ["7/cut.png"], "sha256": "ab" * 32}}
    path.write_text(json.dumps(values))
    said = "probe was done with 399 of 400 test images: 1 could no longer be used (7/cut.png)."
    assert said in gather([b])["runs"][0]["verdict"]["cautions"]
    page = report([b])
    assert said in page.read_text() and said in (b.root / "MODEL_CARD.md").read_text()
    assert "none -> probe: 1 of 400 set aside (7/cut.png)" in compare(a, b)
    assert not [line for line in gather([a])["runs"][0]["verdict"]["cautions"] if "no longer" in line]


@pytest.mark.parametrize(
    ("right", "n", "noise"), [(67, 67, "5 test images is not clearly beyond noise"), (650, 670, "is beyond noise")]
)
def test_a_classifier_with_a_higher_test_accuracy_was_passed_over_for_a_reason(
    full: Run, right: int, n: int, noise: str
) -> None:
    values = collect(full, layout=False)
    values["probe"]["metrics"] |= {"linear_top1": right / n, "val_top1": 0.788, "n_val": 264}
    values["finetune"] = {
        "metrics": {"top1": (62 if n == 67 else 600) / n, "val_top1": 0.81, "n_val": 264, "n_test": n}
    }
    for row in values["files"]:
        row["source"] = "finetune"
    said = trained.passed_over(values)
    assert said.startswith(f"The linear classifier has {100 * right / n:.1f}\u202f% on the {n} test images")
    assert "chosen on 264 validation images (fine-tuned 81.0\u202f%, linear 78.8\u202f%), never on test images" in said
    assert noise in said and said in cautions.cautions_of(values)
    values["finetune"]["metrics"]["top1"] = right / n
    assert trained.passed_over(values) == ""


@pytest.mark.parametrize(("chosen", "n_val"), [("finetune", 160), ("finetune", 20), ("distill", 160), ("distill", 40)])
@pytest.mark.parametrize("probe", [0.52, 0.55, 0.58, 0.61, 0.64])
def test_a_classifier_that_the_validation_images_would_not_choose_is_said_to_be_asked_for(
    full: Run, chosen: str, n_val: int, probe: float
) -> None:
    """``export --set export.source=...`` leaves no trace in the run's recipe; the rule of the export says the rest."""
    values = collect(full, layout=False)
    values["finetune"] = values["distill"] = {}
    values["probe"]["metrics"] |= {"linear_top1": 0.65, "val_top1": probe, "n_val": n_val}
    values[chosen] = {"metrics": {"top1": 0.6, "val_top1": 0.525, "n_val": n_val, "n_test": 40}}
    for row in values["files"]:
        row["source"] = chosen
    said, by_rule = trained.passed_over(values), best({"probe": probe, chosen: 0.525}, n_val)
    assert ("it was asked for (export.source), though the linear one is ahead" in said) == (by_rule == "probe")
    assert ("it was chosen on" in said) == (by_rule == chosen)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (
            {"gate": "passed", "allowed": "1 of 37 answers changed"},
            "passed the exported file (1 of 37 answers changed).",
        ),
        ({"gate": "failed", "why": "agreement 0.9"}, "refused the exported file (agreement 0.9)."),
        ({"gate": "not run"}, ""),
        ({"gate": "failed", "superseded_by": "coreml-int8-search"}, ""),
    ],
)
def test_what_counts_of_a_file_that_the_search_was_not_sure_of_is_the_check(gate: dict[str, str], said: str) -> None:
    row = {"n": 37, "agreement": 0.973, "search": [{"passed": False}], **gate}
    counted = (
        "What counts is the check: on the 37 test images it measured 97.3\u202f% of the answers of fp32, and the gate "
    )
    assert phrases.what_counts(row) == (counted + said if said else "")
    assert phrases.what_counts({**row, "search": [{"passed": False}, {"passed": True}]}) == ""


def test_agreement_is_with_what_the_check_kept_and_not_known_without(tmp_path: Path) -> None:
    """The bench of an earlier version wrote 100 %, against another bench in the same precision."""
    run = synthetic_run.make(tmp_path / "run", extras=True)
    path = run.folder("bench/onnx-int8@emulated_avx2") / "result.json"
    stored = read_json(path)
    stored["metrics"]["agreement_local"] = 1.0
    write_json(path, stored)

    def timing() -> dict[str, Any]:
        rows = {row["artifact"]: row for row in collect(run, layout=False)["files"]}
        return rows["onnx-int8"]["devices"]["emulated_avx2"]

    assert timing()["agreement_local"] == round(0.78 * 120) / 120 and timing()["n_compared"] == 120
    (run.folder("check") / "answers.json").unlink()
    assert "agreement_local" not in timing()


def test_few_labels_have_validated_the_teacher_and_not_the_network(full: Run) -> None:
    values = collect(full, layout=False)
    values["probe"]["metrics"] |= {"linear_top1": 0.7, "val_top1": 0.667, "n_val": 24}
    values["distill"] = {
        "metrics": {"top1": 0.6, "val_top1": 0.917, "n_val": 24, "n_test": 40},
        "validated": "teacher",
    }
    for row in values["files"]:
        row["source"] = "distill"
    said = (
        "it was chosen on 24 labelled images, cross-validated (its teacher 91.7\u202f%, linear 66.7\u202f%), never on"
    )
    assert said in trained.passed_over(values)
