from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from toy_run import SPEC, coloured_squares, toy  # noqa: F401

from softedge import backbones, config
from softedge.errors import UserError
from softedge.eval.bootstrap import paired
from softedge.export import listed
from softedge.stages import baselines, classifier, export, finetune, incomplete, pretrain, probe, teachers
from softedge.stages.deploy import chain
from softedge.stages.opening import replaced


def test_the_highest_validation_accuracy_wins_and_ties_go_to_the_later_stage():
    assert classifier.best({"probe": 0.9, "finetune": 0.8}) == "probe"
    assert classifier.best({"probe": 0.9, "finetune": 0.9}) == "finetune"
    assert classifier.best({"probe": 0.9, "finetune": 0.95}) == "finetune"


def test_an_earlier_stage_must_be_ahead_by_more_than_the_standard_error_of_its_validation_images():
    scores = {"probe": 0.60, "finetune": 0.55, "distill": 0.52}
    assert classifier.standard_error(0.6, 50) == pytest.approx(0.0693, abs=1e-4)
    assert classifier.best({"probe": 0.60, "finetune": 0.55}, 50) == "finetune"
    assert classifier.best({"probe": 0.60, "finetune": 0.52}, 50) == "probe"
    assert classifier.best(scores, 50) == "distill"  # 0.08 behind, less than 1.96 standard errors
    assert classifier.best(scores, 160) == "probe"


def test_the_choice_says_when_another_one_is_ahead_by_chance(toy):  # noqa: F811
    run, recipe, _ = toy("run")
    trained(run, "probe", 0, val_top1=0.60, n_val=50)
    trained(run, "distill", 1, val_top1=0.56, n_val=50)
    assert classifier.source(run, recipe) == "distill"
    assert "probe 0.600, distill 0.560; probe is not clearly ahead" in classifier.why(run, "distill")
    assert "ahead" not in classifier.why(run, "probe")


def test_where_one_has_no_validation_accuracy_the_last_stage_is_taken():
    assert classifier.best({"probe": 0.9, "finetune": None}) == "finetune"


def test_where_nothing_is_validated_the_linear_layer_is_taken_and_a_line_says_so(toy):  # noqa: F811
    """One labelled image a class: none can be held out, neither for the probe nor for fine-tuning."""
    run, recipe, data = toy("run")
    recipe = replaced(recipe, finetune={"min_steps": 1, "max_steps": 1}, probe={"random_baseline": False})
    data = dataclasses.replace(data, train=data.train.subset(np.arange(3)))
    for stage in (probe.stage, finetune.stage):
        assert stage(run, recipe, data).metrics.get("val_top1") is None
    assert classifier.source(run, recipe) == "probe"
    assert teachers.resolve(run, replaced(recipe, distill={"teacher": "best"}), data) == "probe"
    assert classifier.why(run, "probe") == (
        "classifier: probe, the linear layer (a class has one labelled image, and nothing says whether finetune is "
        "better)"
    )
    assert classifier.source(run, replaced(recipe, export={"source": "finetune"})) == "finetune"
    assert classifier.best({"finetune": None, "scratch": None}) == "scratch"


def trained(run, name: str, seed: int, **metrics: float | bool) -> None:
    """A classifier with random weights, as a stage would leave it."""
    backbone = backbones.load(run.folder("pretrain") / "backbone.safetensors")
    model = backbones.Classifier(backbone, ("red", "green", "blue"), SPEC).eval()
    with np.errstate():
        model.head.weight.data.normal_(generator=__import__("torch").Generator().manual_seed(seed))
    run.folder(name).mkdir()
    backbones.save(run.folder(name) / "classifier.safetensors", model, SPEC)
    result = {"stage": name, "name": run.name, "started": "", "seconds": 0, "metrics": metrics}
    result |= {key: {} for key in ("recipe", "inputs", "environment")}
    (run.folder(name) / "result.json").write_text(json.dumps(result))


def test_a_network_that_does_not_follow_its_teacher_is_not_chosen(toy):  # noqa: F811
    run, recipe, _ = toy("run")
    trained(run, "probe", 0, val_top1=0.8)
    trained(run, "distill", 1, val_top1=0.9, kept=False)
    assert classifier.source(run, recipe) == "probe"


def test_labels_alone_are_exported_where_they_are_better_and_never_teach(toy):  # noqa: F811
    run, recipe, data = toy("run")
    trained(run, "finetune", 0, val_top1=0.8)
    trained(run, "scratch", 1, val_top1=0.8)
    assert classifier.source(run, recipe) == "finetune"  # at a tie
    trained(run, "distill", 2, val_top1=0.7)
    rewritten = run.result("scratch").to_dict() | {"metrics": {"val_top1": 0.9}}
    (run.folder("scratch") / "result.json").write_text(json.dumps(rewritten))
    assert classifier.source(run, recipe) == "scratch"
    assert teachers.resolve(run, replaced(recipe, distill={"teacher": "best"}), data) == "finetune"


def test_files_that_were_added_to_those_of_the_recipe_are_made_anew_with_a_new_classifier(toy, capsys):  # noqa: F811
    run, recipe, data = toy("run")

    def asking(*precisions: str):
        return replaced(recipe, export={"targets": ["onnx"], "precisions": list(precisions)})

    trained(run, "probe", 0, val_top1=0.8)
    export.stage(run, asking("fp32"), data)
    export.stage(run, asking("fp16"), data)  # added
    export.stage(run, asking("fp32"), data, again=True)  # nothing has changed
    first = run.result("export/onnx-fp16")
    assert "probe/classifier.safetensors" in first.inputs
    trained(run, "finetune", 1, val_top1=0.9)
    export.stage(run, asking("fp32"), data, again=True)
    assert {*run.results("export")} == {"onnx-fp32", "onnx-fp16"}
    made = run.result("export/onnx-fp16")
    assert "finetune/classifier.safetensors" in made.inputs and made.details["sha256"] != first.details["sha256"]
    trained(run, "distill", 2, val_top1=0.95)
    export.stage(run, asking("fp32"), data)  # set aside: not asked for
    assert {*run.results("export")} == {"onnx-fp32"}
    export.stage(run, asking("fp32"), data, again=True)  # also what a killed start has set aside
    assert "distill/classifier.safetensors" in run.result("export/onnx-fp16").inputs
    said = capsys.readouterr().err
    assert "export/onnx-fp16 was made from probe/classifier.safetensors; made anew from finetune/" in said


@pytest.mark.parametrize("name", ["finetune", "probe"])
def test_no_other_classifier_is_taken_while_one_is_half_made(toy, name):  # noqa: F811
    run, recipe, data = toy("run")
    other = {"finetune": "probe", "probe": "finetune"}[name]
    trained(run, other, 0, val_top1=0.8)
    run.folder(name).mkdir()
    (run.folder(name) / "begun.json").write_text("{}")
    go_on = f"^'{name}' was interrupted; to go on, run: softedge {name} {run.root}; to do without it: "
    for use in (export.stage, baselines.stage):
        with pytest.raises(UserError, match=f"{go_on}--set export.source={other}$"):
            use(run, recipe, data)
    for teacher in ("best", "ensemble"):
        with pytest.raises(UserError, match=f"{go_on}--teacher {other}$"):
            teachers.resolve(run, replaced(recipe, distill={"teacher": teacher}), data)
    assert classifier.source(run, replaced(recipe, export={"source": other})) == other


def test_a_change_of_the_classifier_leaves_no_file_of_the_other_one(toy, capsys):  # noqa: F811
    run, recipe, data = toy("run")
    recipe = recipe.model_copy(update={"export": recipe.export.model_copy(update={"targets": ("onnx",)})})
    both = recipe.model_copy(update={"export": recipe.export.model_copy(update={"precisions": ("fp32", "fp16")})})
    one = recipe.model_copy(update={"export": recipe.export.model_copy(update={"precisions": ("fp32",)})})
    trained(run, "probe", 0, val_top1=0.8)
    export.stage(run, both, data)
    before = run.result("export/onnx-fp32").details["sha256"]
    trained(run, "finetune", 1, val_top1=0.9)
    export.stage(run, one, data)  # without --force
    assert set(run.results("export")) == {"onnx-fp32"}
    said = capsys.readouterr().err
    other = "was made from probe/classifier.safetensors"
    assert f"onnx-fp16 {other}; set aside in .previous/" in said and f"onnx-fp32 {other}; made anew from" in said
    made = run.result("export/onnx-fp32")
    assert made.details["sha256"] != before
    assert "finetune/classifier.safetensors" in made.inputs and "probe/classifier.safetensors" not in made.inputs
    export.stage(run, one, data)
    assert run.result("export/onnx-fp32").started == made.started
    assert incomplete.files(run, both) == {}, "nobody misses a file of the classifier before"
    assert listed.names(run) == ["onnx-fp32"]
    export.stage(run, both, data)
    shutil.rmtree(run.folder("export/onnx-fp16"))
    missing = "is missing; bring it back, or make it again: softedge export"
    added = incomplete.files(run, one)["onnx-fp16"]
    assert added.startswith(f"{missing} {run} --targets onnx --precisions fp16; to do without it, ")
    assert incomplete.files(run, both) == {"onnx-fp16": f"{missing} {run}"}, "it was made of this one, too"
    (run.root / "exported.json").unlink()  # as in a run of an earlier version
    assert incomplete.files(run, one) == {}
    assert incomplete.files(run, both) == {"onnx-fp16": f"{missing} {run}"}, "a version of it is kept"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"targets": ["onx"]}, "unknown target 'onx'"),
        ({"targets": []}, "nothing to export"),
        ({"precisions": ["fp99"]}, "no 'fp99'"),
        ({"set": ["export.precisions=['fp99']"]}, "no 'fp99'"),
    ],
)
def test_export_refuses_a_misspelt_name_before_it_opens_the_images(toy, monkeypatch, given, said):  # noqa: F811
    run, recipe, _ = toy("run")
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    monkeypatch.setattr("softedge.stages.data.opened", lambda *_: pytest.fail("the images were opened"))
    with pytest.raises(UserError, match=said):
        export.export(run.root, **given)


def test_the_comparison_follows_the_classifier_and_counts_its_answers(toy):  # noqa: F811
    run, recipe, data = toy("run")
    trained(run, "probe", 0, val_top1=0.8)
    first = baselines.stage(run, recipe, data)
    trained(run, "finetune", 1, val_top1=0.9)
    second = baselines.stage(run, recipe, data)
    assert (first.details["classifier"], second.details["classifier"]) == ("probe", "finetune")
    kept = np.load(run.folder("baselines") / "predictions.npz")
    assert second.metrics["top1"] == (kept["test_predictions"] == data.test.labels).mean()
    assert second.metrics["useful"] is False  # a random head does not beat a colour histogram
    right = dict(zip([row["name"] for row in second.details["rows"]], kept["cheap_predictions"] == data.test.labels))
    gains = {
        name: paired(kept["test_predictions"] == data.test.labels, right[name]) for name in second.details["rivals"]
    }
    assert second.metrics["gain_low"] == min(gain.low for gain in gains.values()) == gains[second.details["rival"]].low
    assert 0 < second.metrics["n_val"] < second.metrics["n_train"]
    assert next(row["name"] for row in second.details["rows"]) == "majority class"


def test_no_epochs_keep_the_starting_weights(toy):  # noqa: F811
    run, recipe, data = toy("run")
    import shutil

    shutil.rmtree(run.folder("pretrain"))
    recipe = recipe.model_copy(update={"ssl": recipe.ssl.model_copy(update={"epochs": 0})})
    assert pretrain.stage(run, recipe, data).metrics == {"epochs": 0, "steps": 0}
    found = backbones.load(run.folder("pretrain") / "backbone.safetensors").state_dict()
    for name, tensor in backbones.build(recipe.backbone, recipe.seed).state_dict().items():
        np.testing.assert_array_equal(found[name], tensor)


@pytest.mark.parametrize(("labels", "test", "expected"), [
    (True, True, {"probe", "finetune", "baselines"}), (True, False, {"probe"}), (False, False, set()),
])  # fmt: skip
def test_the_chain_suits_the_labels(toy, labels, test, expected):  # noqa: F811
    _, recipe, data = toy("run")
    none = coloured_squares(0, 0)
    data = dataclasses.replace(data, train=data.train if labels else none, test=data.test if test else none)
    names, _ = chain(recipe, data)
    assert {"probe", "finetune", "baselines"} & set(names) == expected


@pytest.mark.parametrize(("labels", "without", "expected"), [
    (30, 0, {"probe", "finetune", "baselines"}),  # all have one
    (30, 60, {"probe", "distill", "baselines"}),  # few, and many without
    (303, 100, {"probe", "finetune", "baselines"}),  # too few without
    (303, 330, {"probe", "finetune", "distill", "baselines"}),
])  # fmt: skip
def test_the_images_without_a_label_teach_where_they_are_many(toy, labels, without, expected):  # noqa: F811
    from softedge.data.images import ArrayImages

    _, recipe, data = toy("run")
    train = coloured_squares(labels, 0)
    everything = coloured_squares(labels + without, 0)
    unknown = np.where(np.arange(labels + without) < labels, everything.labels, -1)
    pretrained = ArrayImages(everything.array, unknown, everything.names)
    names, _ = chain(recipe, dataclasses.replace(data, train=train, pretrain=pretrained))
    assert {"probe", "finetune", "distill", "baselines"} & set(names) == expected
    off = recipe.model_copy(update={"plan": recipe.plan.model_copy(update={"distill": False})})
    assert "finetune" in chain(off, dataclasses.replace(data, train=train, pretrain=pretrained))[0]


def test_a_finished_stage_without_its_file_is_no_stage_that_was_not_run(toy):  # noqa: F811
    run, recipe, _ = toy("run")
    trained(run, "probe", 0, val_top1=0.9)
    trained(run, "finetune", 1, val_top1=0.8)
    (run.folder("probe") / "classifier.safetensors").unlink()
    with pytest.raises(UserError, match="probe/classifier.safetensors is missing, though probe is done; bring it back"):
        classifier.source(run, recipe)
