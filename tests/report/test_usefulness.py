from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic_extras
import synthetic_run
from test_verdict import DEVICES, row

from softedge.report import card, gains, phrases, report, trained, usefulness, words
from softedge.report.collect import collect
from softedge.report.verdict import decide
from softedge.run import Run


def run(useful: bool, **more: Any) -> dict[str, Any]:
    metrics = {"top1": 0.525, "cheap_top1": 0.804, "gain": -0.279, "gain_low": -0.32, "gain_high": -0.23}
    metrics |= {"useful": useful, "n_train": 2022, "n_test": 505}
    baselines = {"metrics": metrics, "rival": "SVM on a colour histogram", "classifier": "probe"}
    recipe = {"backbone": {"weights": "random"}, "plan": {"minutes": 15.0}, "ssl": {"method": "simco"}}
    values = {"baselines": baselines, "recipe": recipe, "data": {"classes": list("abcdef")}, "finetune": {}}
    return {**values, "pretrain": {"metrics": {"epochs": 60}}, "files": [], "plan": {"minutes": 15.0}, **more}


def test_a_network_below_a_colour_histogram_is_not_headlined_ship() -> None:
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    assert decided.headline.answer.startswith("Ship")
    pick = usefulness.judged(decided, run(useful=False)).headline
    assert pick.status == "not better than cheap" and pick.artifact == "" and pick.device == "local"
    assert pick.answer.startswith("Do not ship ONNX int8 yet")
    assert "52.5\u202f%" in pick.answer and "an SVM on a colour histogram 80.4\u202f%" in pick.answer
    for advice in ("starting weights", "fine-tuning", "more labels", "--minutes 30"):
        assert advice in pick.reason


@pytest.mark.parametrize(
    ("low", "high", "said", "page"),
    [
        (-0.039, -0.003, "clearly below zero", "clearly worse than"),
        (-0.039, 0.003, "not clearly above zero", "not clearly better than"),
    ],
)
def test_an_interval_below_zero_is_called_so(low: float, high: float, said: str, page: str) -> None:
    values = run(useful=False)
    values["baselines"]["metrics"] |= {"gain": -0.02, "gain_low": low, "gain_high": high}
    reason = usefulness.judged(decide([row("onnx-int8", 1.0)], DEVICES), values).headline.reason
    assert f"), {said}. " in reason and f"The network is {page}" in usefulness.cheap_lead(values)


def test_cheap_classifiers_that_held_out_images_cannot_tell_apart_are_all_to_be_beaten() -> None:
    values = run(useful=False)
    values["baselines"]["rivals"] = ["SVM on HOG", "SVM on a colour histogram"]
    metrics = values["baselines"]["metrics"] | {"gain_high": 0.03, "n_val": 6}
    values["baselines"]["metrics"] = metrics
    equals = "2 cheap classifiers that 6 held-out training images cannot tell apart"
    reason = usefulness.judged(decide([row("onnx-int8", 1.0)], DEVICES), values).headline.reason
    assert f"not clearly above zero; an SVM on a colour histogram is the hardest to beat of {equals}. " in reason
    lead = re.sub("<[^>]*>", "", usefulness.cheap_lead(values))
    hardest = "hardest to beat is SVM on a colour histogram: 52.5"
    assert lead.startswith(f"The network is not clearly better than all of the {equals}; {hardest}")
    assert "did best" not in lead
    metrics["gain_high"], metrics["n_val"] = -0.01, 0
    lead = re.sub("<[^>]*>", "", usefulness.cheap_lead(values))
    assert "worse than one of the 2 cheap classifiers that no held-out training images can tell apart" in lead


def test_a_run_that_was_not_planned_is_not_sent_to_an_option_that_it_would_refuse() -> None:
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    reason = usefulness.judged(decided, run(useful=False, plan={})).headline.reason
    assert "--minutes" not in reason and "--set ssl.epochs=" in reason


@pytest.mark.parametrize(
    ("more", "said"), [(None, "--minutes 30"), (20, "--minutes 30"), (52, "--minutes 52"), (0, "")]
)
def test_more_time_is_advised_in_minutes_that_change_the_plan(more: int | None, said: str) -> None:
    planned = {"minutes": 15.0} | ({} if more is None else {"more_minutes": more})
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    reason = usefulness.judged(decided, run(useful=False, plan=planned)).headline.reason
    assert said in reason if said else "--minutes" not in reason


@pytest.mark.parametrize(
    ("size", "longer_side", "said"),
    [
        (64, 512, "--set data.size=96"),
        (160, 512, "--set data.size=192"),
        (192, 224, "--set data.size=224"),
        (48, 512, "--set data.size=64"),
        (224, 4000, ""),  # plans know none above
        (64, 95, ""),  # the photos have no more pixels
        (96, 100, ""),
        (32, 32, ""),
        (64, None, ""),  # a run of an earlier version
    ],
)
def test_larger_images_are_advised_with_their_pixels_where_the_photos_have_them(
    size: int, longer_side: int | None, said: str
) -> None:
    values = run(useful=False, finetune={"metrics": {}}, plan={"more_minutes": 0})
    values["recipe"]["backbone"] = {"name": "a network", "weights": "package"}
    values["data"] |= {"spec": {"size": size}} | ({} if longer_side is None else {"longer_side": longer_side})
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    reason = usefulness.judged(decided, values).headline.reason
    assert f"or larger images ({said})." in reason if said else "larger images" not in reason


def test_larger_images_are_not_advised_where_the_device_was_too_slow_for_them() -> None:
    fit = {"network": "a network", "size": 160, "met": False}
    values = run(useful=False, finetune={"metrics": {}}, plan={"more_minutes": 0, "fits": [fit]})
    values["recipe"]["backbone"] = {"name": "a network", "weights": "package"}
    values["data"] |= {"longer_side": 512, "spec": {"size": 96}}
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    assert "larger images (--set data.size=128)" in usefulness.judged(decided, values).headline.reason, "not measured"
    values["data"]["spec"] = {"size": 128}
    assert "larger images" not in usefulness.judged(decided, values).headline.reason


def test_the_pixels_of_a_taught_network_are_its_own() -> None:
    student = {"name": "a small network", "weights": "random"}
    values = run(useful=False, distill={"network": student}, files=[{"source": "distill"}], plan={"more_minutes": 0})
    values["recipe"] |= {"distill": {"size": 96}, "backbone": {"weights": "package"}}
    values["data"] |= {"longer_side": 512, "spec": {"size": 224}}
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    assert "larger images (--set distill.size=128)" in usefulness.judged(decided, values).headline.reason


def test_a_useful_network_and_a_run_without_the_comparison_are_left_alone() -> None:
    decided = decide([row("onnx-int8", 1.0)], DEVICES)
    assert usefulness.judged(decided, run(useful=True)) is decided
    assert usefulness.judged(decided, run(True, baselines={})) is decided


def test_what_failed_the_gate_keeps_its_reason() -> None:
    decided = decide([row("onnx-int8", 1.0, "failed", why="agreement")], DEVICES)
    assert usefulness.judged(decided, run(useful=False)) == decided


def test_the_card_says_how_the_classifier_was_trained() -> None:
    assert trained.origin(run(True)) == (
        "It started from random weights, was pretrained without labels (simco, 60 epochs) and was given a linear "
        "classifier on its frozen features."
    )
    given = run(
        True, recipe={"backbone": {"weights": "package"}}, pretrain={"metrics": {"epochs": 0}},
        finetune={"metrics": {"n_train": 1912}}, files=[{"source": "finetune"}],
    )  # fmt: skip
    assert trained.origin(given) == (
        "It started from ImageNet weights and was fine-tuned in all layers on 1\u202f912 labelled images."
    )


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "Output `probabilities`: float32."),
        ("features: float32", "Output `features`: float32; of ONNX fp16 `probabilities`: float32."),
    ],
)
def test_the_card_names_the_output_that_the_files_have(output: str, said: str, full: Run) -> None:
    values = collect(full, layout=False)
    for file in values["files"]:
        if output and file["artifact"] != "onnx-fp16":
            file["output"] = output
    values["verdict"] = json.loads((full.root / "report.json").read_text())["runs"][0]["verdict"]
    text = card.card(values)
    assert said in text and "\n\n## How to use a file\n" in text


def test_pretraining_that_did_not_help_is_said_once_and_not_claimed() -> None:
    metrics = {"epochs": 5, "before_val_top1": 0.881, "after_val_top1": 0.862, "n_val": 1909}
    given = run(True, recipe={"backbone": {"weights": "package"}}, pretrain={"metrics": metrics, "kept": "start"})
    assert "pretrained" not in trained.origin(given) and not words.pretrained(given)
    assert gains.worth_it(given) == (  # a run from before the interval was kept
        "Of 1\u202f909 held-out training images a linear layer answers 88.1\u202f% right on the features of the "
        "starting weights and 86.2\u202f% on the pretrained ones: those of the starting weights were kept."
    )
    better = metrics | {"after_val_top1": 0.9, "gain": 0.019, "gain_low": 0.004, "gain_high": 0.034}
    helped = run(True, recipe=given["recipe"], pretrain={"metrics": better, "kept": "trained"})
    assert "was pretrained without labels" in trained.origin(helped) and words.pretrained(helped)
    assert gains.worth_it(helped).endswith(
        "90.0\u202f% on the pretrained ones (difference +1.9 points, 95 % interval +0.4 to +3.4): the pretrained ones "
        "were kept."
    )
    assert gains.worth_it(run(True)) == ""


def test_a_network_from_elsewhere_is_not_said_to_be_trained_here() -> None:
    elsewhere = run(True, recipe={"export": {"source": "given"}, "backbone": {"weights": "random"}}, pretrain={})
    assert trained.origin(elsewhere) == "It was trained elsewhere; this run was given its weights."


def test_the_card_names_all_who_taught_and_the_networks_whose_features_they_looked_at():
    networks = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240}
    stage = {
        "teacher": "ensemble",
        "taught_by": ["spread", "linear", "finetune"],
        "pixels": networks,
        "metrics": {"n_train": 450, "n_unlabelled": 1400},
    }
    taught = run(True) | {"distill": stage, "files": [{"source": "distill"}]}
    said = (
        "was trained in all layers on labels that spread from labelled images to similar ones, by the features of "
        "tf_efficientnet_lite0 and tf_efficientnet_lite1, the answers of a linear layer on the same features and the "
        "fine-tuned network's answers, for 450 images with a label and 1\u202f400 without."
    )
    assert trained.origin(taught).endswith(said)
    worded = taught | {"distill": stage | {"words": {"0.0": 0.5, "0.5": 0.3, "1.0": 0.2}}}
    assert "tf_efficientnet_lite0 and tf_efficientnet_lite1 and by visual words, the answers of" in trained.origin(
        worded
    )
    alone = taught | {"distill": stage | {"teacher": "finetune", "taught_by": []}}
    assert "all layers on the fine-tuned network's answers, for" in trained.origin(alone)
    other = taught | {"distill": stage | {"teacher": "runs/large"}}
    assert "all layers on the answers of another network, for" in trained.origin(other)


def test_a_network_that_the_runs_own_taught_is_named_with_its_own_start():
    recipe = {"backbone": {"name": "tf_efficientnet_lite0", "weights": "package"}, "export": {"source": "distill"}}
    stage = {
        "teacher": "finetune",
        "network": {"name": "mobilenetv3_small_050", "weights": "random"},
        "metrics": {"n_train": 100, "n_unlabelled": 500},
    }
    taught = run(True, recipe=recipe) | {"distill": stage, "files": [{"source": "distill"}], "stages": []}
    assert phrases.about(taught) == "mobilenetv3_small_050, taught by tf_efficientnet_lite0"
    assert trained.origin(taught) == (
        "It started from random weights and was trained in all layers on the fine-tuned network's answers, for "
        "100 images with a label and 500 without."
    )
    assert '- "mobilenetv3_small_050"' in card.front_matter(taught)
    own = taught | {"files": [{"source": "finetune"}]}
    assert phrases.about(own) == "tf_efficientnet_lite0"
    assert trained.origin(own).startswith("It started from ImageNet weights")


def test_a_run_without_a_file_to_ship_has_no_numbers_of_one_beside_another_and_does_not_call_them_not_run(
    tmp_path: Path,
) -> None:
    runs = [synthetic_run.make(tmp_path / name) for name in "ab"]
    synthetic_extras.add(runs[0])
    path = runs[0].folder("baselines") / "result.json"
    values = json.loads(path.read_text())
    values["metrics"]["useful"] = False
    path.write_text(json.dumps(values))
    text = report(runs).read_text()
    row = text[text.index('id="sides"') :].split("</tr>")[1]  # below the header
    assert "not better than cheap" in row
    for column in ("top-1", "p90, ms", "size"):
        assert f'data-label="{column}" class="num">–</td>' in row


@pytest.mark.parametrize(("n", "spared"), [(120, True), (359, False), (None, False)])
def test_the_lead_says_that_one_answer_may_change_only_where_test_images_are_few(n, spared):
    given = run(True) | {"check": {"gates": {"min_agreement": 0.98, "max_drop": 0.01}}, "devices": {}}
    given["files"] = [{"artifact": "onnx-int8", "size_bytes": 1, "gate": "passed", "n": n, "devices": {}}]
    assert ("of fewer than 200 images, one answer may change" in phrases.files_lead(given)) == spared


def test_files_that_a_reference_interpreter_computed_say_so_in_report_and_card(tmp_path):
    files = [
        {"artifact": "coreml-fp32", "runtime": "reference interpreter (reference numerics, not the Neural Engine)"},
        {"artifact": "coreml-int8", "runtime": "reference interpreter (reference numerics, not the Neural Engine)"},
        {"artifact": "onnx-int8", "runtime": "onnxruntime 1.32.0"},
    ]
    said = phrases.interpreted(files)
    assert said.startswith("Core ML fp32 and Core ML int8 were computed by a reference interpreter of the program, not")
    assert phrases.interpreted(files[1:]).startswith("Core ML int8 was computed")
    assert phrases.interpreted([files[2], {"artifact": "coreml-int8", "runtime": "Core ML on macOS 15.1"}]) == ""
    run = synthetic_run.make(tmp_path / "run")
    assert "by a reference interpreter of the program" in re.sub("<[^>]*>", "", report([run]).read_text())
    assert "by a reference interpreter of the program" in (run.root / "MODEL_CARD.md").read_text()
