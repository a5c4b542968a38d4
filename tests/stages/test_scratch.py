"""Labels alone: as many images as the whole run, from random weights, compared on the same test images."""

from __future__ import annotations

import pytest
from toy_run import coloured_squares

from softedge import backbones, config
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.eval.features import extract
from softedge.report.gains import labels_alone
from softedge.report.trained import origin
from softedge.run import Run
from softedge.stages import finetune, scratch
from softedge.stages.base import begun_from
from softedge.stages.deploy import chain
from softedge.stages.opening import replaced


def sized(recipe: config.Recipe, unlabelled: int, labelled: int) -> int:
    """Epochs on ``labelled`` images."""
    train = coloured_squares(labelled, 0)
    data = Data("toy", ("red", "green", "blue"), None, coloured_squares(unlabelled, 1), train, train)
    return scratch.alone(recipe, data).finetune.epochs


@pytest.mark.parametrize(
    ("ssl", "expected"),
    [
        ({"method": "simco", "epochs": 5}, 3 + 2 * 5 * 2),  # two views of twice as many images
        ({"method": "visual-words", "epochs": 5}, 3 + 5 * 2),  # one
        ({"method": "simco", "epochs": 0}, 3),
    ],
)
def test_as_many_images_pass_through_the_network_as_in_the_whole_run(ssl, expected):
    recipe = config.build({"ssl": ssl, "finetune": {"epochs": 3}, "data": {"size": 32}})
    assert sized(recipe, unlabelled=48, labelled=24) == expected


def test_small_views_count_by_their_pixels():
    recipe = config.load("dino", ["data.size=64", "ssl.local_size=32", "ssl.epochs=4", "finetune.epochs=1"])
    local = recipe.ssl.local_views
    assert sized(recipe, unlabelled=24, labelled=24) == 1 + 4 * (2 + local / 4)


def test_labels_alone_start_at_random_weights_and_are_compared_on_the_test_images(toy):
    run, recipe, data = toy("run")
    recipe = replaced(recipe, ssl={"epochs": 2})
    finetune.stage(run, recipe, data)
    found = scratch.stage(run, recipe, data)
    right = {}
    for name in ("finetune", "scratch"):
        model = backbones.load_classifier(run.folder(name) / "classifier.safetensors")
        right[name] = extract(model, data.test, model.spec).argmax(1) == data.test.labels
    assert found.metrics["top1"] == right["scratch"].mean() > 0.8
    assert found.metrics["other_top1"] == right["finetune"].mean()
    assert found.metrics["gain"] == pytest.approx(right["finetune"].mean() - right["scratch"].mean())
    assert found.metrics["gain_low"] <= found.metrics["gain"] <= found.metrics["gain_high"]
    assert found.details["init"] == "random" and found.details["compared"] == "finetune"
    assert scratch.stage(run, recipe, data).started == found.started  # done before
    with pytest.raises(UserError, match="fine-tuned for 1 epochs, asked are 2"):
        scratch.stage(run, replaced(recipe, finetune={"epochs": 2}), data)


def test_deploy_runs_it_where_the_plan_says_so(toy):
    _, recipe, data = toy("run")
    assert "scratch" not in chain(recipe, data)[0]
    names = chain(replaced(recipe, plan={"scratch": True}), data)[0]
    assert names.index("finetune") < names.index("scratch") < names.index("export")


def described(**metrics):
    return {
        "recipe": {"backbone": {"weights": "random"}, "ssl": {"epochs": 5}},
        "pretrain": {"metrics": {"epochs": 5}},
        "finetune": {"metrics": {"top1": 0.8}},
        "scratch": {"compared": "finetune", "metrics": {"epochs": 9, "top1": 0.7, "n_train": 300} | metrics},
        "files": [{"source": "scratch"}],
    }


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.02, 0.15, "clearly better"), (-0.1, -0.02, "clearly worse"), (-0.02, 0.1, "not clearly better")],
)
def test_the_report_says_what_pretraining_gained_over_the_labels_alone(low, high, verdict):
    run = described(other_top1=0.8, gain=0.1, gain_low=low, gain_high=high)
    said = labels_alone(run).striptags()
    assert "labels alone with as many images (9 epochs): 70.0 %" in said and said.endswith(f": {verdict}.")


def test_the_report_names_the_command_where_it_was_not_measured():
    run = described() | {"scratch": {}}
    assert "not measured; <code>softedge scratch RUN</code>" in labels_alone(run)
    assert labels_alone(run | {"finetune": {}, "probe": {}}) == ""


def test_a_run_from_given_weights_says_that_the_labels_alone_were_not_measured():
    run = described() | {"scratch": {}, "pretrain": {"metrics": {"epochs": 0}}}
    assert labels_alone(run) == "", "it started from random weights: it is the labels alone"
    given = run | {"recipe": {"backbone": {"weights": "package"}}}
    assert "from random weights trained as long: not measured" in labels_alone(given)
    assert "not measured" in labels_alone(given | {"finetune": {}, "probe": {"metrics": {"linear_top1": 0.7}}})


def test_a_classifier_of_labels_alone_is_not_called_pretrained():
    assert origin(described()) == "It was trained from random weights on 300 labelled images alone."


@pytest.mark.parametrize(
    ("init", "ssl", "weights", "words"),
    [
        ("ssl", {"epochs": 3, "method": "simco"}, "random", "the network pretrained with simco"),
        ("ssl", {"epochs": 0}, "package", "the starting weights (ImageNet)"),
        ("ssl", {"epochs": 0}, "auto", "the starting weights (ImageNet)"),
        ("ssl", {"epochs": 0}, "imagenet", "the starting weights (ImageNet)"),
        ("ssl", {"epochs": 0}, "/home/me/mine.pth", "the starting weights (mine.pth)"),
        ("ssl", {"epochs": 0}, "random", "random weights"),
        ("random", {"epochs": 3}, "package", "random weights"),
        ("imagenet", {"epochs": 3}, "random", "ImageNet weights"),
    ],
)
def test_a_training_says_what_it_starts_from(tmp_path, init, ssl, weights, words):
    recipe = config.build({"ssl": ssl, "backbone": {"name": "tf_efficientnet_lite0", "weights": weights}})
    assert begun_from(Run(tmp_path), recipe, init) == words
