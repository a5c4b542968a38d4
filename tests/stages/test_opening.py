"""How a command opens a run: the lock comes before anything is written, and a run stays the training that it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import softedge
from softedge import config
from softedge.errors import OtherSettings, UserError
from softedge.records import Outcome
from softedge.run import Run, perform, write_text
from softedge.stages import plan
from softedge.stages.opening import ASKED, PLAN, choose_recipe, reopen, reopened, started
from softedge.stages.pretrain import settings


@contextmanager
def another_process_working_on(folder: Path) -> Iterator[None]:
    code = (
        "import sys\nfrom softedge.run import Run\n"
        "with Run(sys.argv[1]).locked():\n print('held', flush=True)\n input()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout is not None and there.stdout.readline() == "held\n"
        yield
        there.communicate("\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_refused_command_leaves_the_run_of_another_process_as_it_was(tmp_path):
    with started(tmp_path / "run", choose_recipe("digits", None)):
        pass
    before = contents(tmp_path)
    assert before
    with another_process_working_on(tmp_path / "run"):
        for command in (
            lambda: softedge.deploy(out=tmp_path / "run", set=["seed=5"], force=True),
            lambda: softedge.deploy(out=tmp_path / "run", max_p90=1.0),
            lambda: softedge.pretrain(out=tmp_path / "run", set=["optim.lr=0.5"], force=True),
            lambda: softedge.probe(tmp_path / "run", force=True),
            lambda: softedge.check(tmp_path / "run", max_p90=1.0),
            lambda: softedge.bring_in(tmp_path / "run", "perf.txt", "onnx-fp32", "a phone"),
        ):
            with pytest.raises(UserError, match="another softedge process is using"):
                command()
            assert contents(tmp_path) == before


def test_a_folder_that_is_not_a_run_gets_no_lock_file(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for command in (lambda: softedge.probe(tmp_path), lambda: softedge.deploy(out=tmp_path)):
        with pytest.raises(UserError, match="not a softedge run"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_in_a_run_or_a_file_is_told_from_a_run(toy, tmp_path):
    run, recipe, _ = toy("mine")
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    for inside in (run.folder("data"), run.folder("data") / "index.json"):
        with pytest.raises(UserError, match=f"is part of the run {run.root}; give the run's folder"):
            reopen(inside)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="model.onnx is a file, not a run; softedge export-file"):
        reopen(tmp_path / "model.onnx")


def test_deploy_refuses_the_folder_and_the_limits_before_it_plans(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "recipe_for", lambda *_: pytest.fail("planned"))
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty and not a softedge run"):
        softedge.deploy(data="digits", out=tmp_path)
    with pytest.raises(UserError, match=r"check.max_drop .* less than or equal to 1, found 7"):
        softedge.deploy(data="digits", max_drop=7.0)


def trained(toy) -> tuple[Run, config.Recipe]:
    """A run whose pretraining recorded what it was done with."""
    import json

    run, recipe, _ = toy("run")
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    path = run.folder("pretrain") / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": settings(recipe)}))
    return run, recipe


def test_a_recipe_edited_by_hand_after_the_training_is_refused_with_the_values(toy):
    run, recipe = trained(toy)
    with reopened(run.root, probe={"labels": 0.5}) as (_, asked):
        assert asked.probe.labels == 0.5 and asked.optim == recipe.optim
    edited = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"lr": 0.123})})
    (run.root / "recipe.toml").write_text(config.to_toml(edited))
    with pytest.raises(
        UserError, match=r"recipe.toml was changed since the run was trained \(optim.lr: 0.2 -> 0.123\)"
    ):
        softedge.probe(run.root)


def test_a_setting_that_an_old_run_did_not_record_is_no_reason_to_refuse_it(toy):
    import json

    run, _ = trained(toy)
    path = run.folder("pretrain") / "result.json"
    recorded = json.loads(path.read_text())
    del recorded["recipe"]["optim"]["clip_norm"], recorded["recipe"]["augment"]
    path.write_text(json.dumps(recorded))
    with reopened(run.root):
        pass


def test_set_may_change_a_stage_and_not_the_training(toy):
    run, _ = trained(toy)
    with reopened(run.root, ["probe.few_labels=3"]) as (_, recipe):
        assert recipe.probe.few_labels == 3
    with pytest.raises(UserError, match=r"--set would change what .* was trained with \(optim.lr"):
        softedge.probe(run.root, set=["optim.lr=1.0"])


def test_a_folder_of_photos_is_not_advised_as_the_place_of_a_new_run(tmp_path):
    """``deploy --out`` would refuse it: the advice names the folder as the images, and a run's folder as an example."""
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="no recipe.toml") as refused:
        reopen(tmp_path)
    assert f"deploy --data {tmp_path}" in str(refused.value) and "--out" not in str(refused.value)
    with pytest.raises(UserError, match="no such folder.; make one with: softedge deploy --data PHOTOS --out"):
        reopen(tmp_path / "absent")


def test_a_command_that_a_stage_refuses_puts_recipe_and_plan_back(tmp_path):
    with started(tmp_path / "run", choose_recipe("digits", None)) as run:
        write_text(run.root / PLAN, "{}")
    before = contents(tmp_path / "run")
    other = choose_recipe("digits", None, ["check.min_accuracy=0.99"])
    with pytest.raises(OtherSettings), started(tmp_path / "run", other) as run:
        assert contents(tmp_path / "run") != before
        write_text(run.root / PLAN, "{1}")
        write_text(run.root / ASKED, "{}")  # by an earlier version there was none
        perform(run, "check", lambda folder: Outcome(), recipe={"min_accuracy": 0.0}, inputs={})
        perform(run, "check", lambda folder: Outcome(), recipe={"min_accuracy": 0.99}, inputs={})
    after = contents(tmp_path / "run")
    assert {name: after[name] for name in before} == before and ASKED not in after
    with pytest.raises(UserError), started(tmp_path / "run", other):
        raise UserError("the disk is full")  # what was done is done with the recipe that was asked for
    assert contents(tmp_path / "run") != after


def test_a_training_that_fails_while_the_one_before_stands_leaves_the_recipe_of_that(toy):
    run, recipe = trained(toy)
    before = contents(run.root)
    other = config.build(recipe.model_dump(mode="json"), ["optim.lr=1e30"])
    with pytest.raises(UserError, match="the loss is nan"), started(run.root, other, force=True):
        raise UserError("the loss is nan")
    after = contents(run.root)
    assert {name: after[name] for name in before} == before
    with reopened(run.root):
        pass
    with pytest.raises(UserError, match="stopped"), started(run.root, other, force=True):
        (run.folder("pretrain") / "result.json").unlink()  # set aside, and half of the new one is there
        raise UserError("stopped")
    assert config.load(str(run.root / "recipe.toml")).optim.lr == 1e30  # it resumes


def test_a_redo_with_another_recipe_that_is_killed_leaves_the_recipe_of_the_training_that_is_back(toy):
    run, recipe = trained(toy)
    other = config.build(recipe.model_dump(mode="json"), ["optim.lr=0.5"])

    def killed(folder: Path) -> Outcome:
        os._exit(9)

    child = os.fork()
    if child == 0:
        with started(run.root, other, force=True):
            perform(run, "pretrain", killed, recipe=settings(other), inputs={}, resumable=True, force=True)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert run.result("pretrain") is None and config.load(str(run.root / "recipe.toml")).optim.lr == 0.5
    with reopened(run.root) as (_, opened):
        assert opened.optim.lr == recipe.optim.lr and run.result("pretrain") is not None


def test_how_fast_a_run_reads_and_what_it_writes_beside_may_change_at_any_time(toy):
    run, recipe = trained(toy)
    sets = ["data.workers=7", "ssl.checkpoint_every=3", 'ssl.log=["tensorboard"]']
    with started(run.root, config.build(recipe.model_dump(mode="json"), sets)):
        pass
    with reopened(run.root, ["data.workers=0"]) as (_, opened):
        assert (opened.data.workers, opened.ssl.checkpoint_every) == (0, 3)


@pytest.mark.parametrize("given", ["data", "--set"])
def test_a_relative_folder_of_images_is_found_from_elsewhere_later(tmp_path, monkeypatch, given):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    data, sets = ("photos", []) if given == "data" else (None, ["data.source=photos"])
    assert choose_recipe(data, "small-domain", sets).data.source == str(tmp_path / "photos")


@pytest.mark.parametrize("there", [False, True])
def test_a_new_run_that_is_refused_before_any_work_leaves_nothing(tmp_path, there):
    folder = tmp_path / "runs" / "mine"
    if there:
        folder.mkdir(parents=True)  # the user's own
    with pytest.raises(UserError, match="no images"), started(folder, choose_recipe("digits", None)) as run:
        write_text(run.root / PLAN, "{}")
        (run.root / "data").mkdir()
        raise UserError("no images")
    assert [path.name for path in tmp_path.rglob("*")] == (["runs", "mine"] if there else [])


def test_a_refused_run_keeps_what_is_no_recipe_or_plan(tmp_path):
    folder = tmp_path / "mine"
    with pytest.raises(UserError, match="no images"), started(folder, choose_recipe("digits", None)) as run:
        write_text(run.root / "data.csv", "half a training")
        raise UserError("no images")
    assert {"recipe.toml", "data.csv"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["deploy", "--data", "nothere"], "data 'nothere' does not exist; did you mean 'nowhere'?"),
        (["plan", "--data", "nothere"], "data 'nothere' does not exist"),
        (["data", "a.jpg"], "data 'a.jpg' is a file"),
        (["pretrain", "--data", " "], "the data set has an empty name"),
        (["export", "nothere"], "nothere is not a softedge run"),
    ],
)
def test_a_path_that_does_not_exist_is_refused_before_torch_is_imported(tmp_path, words, line):
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    program = (
        "import sys; from softedge.cli import main\n"
        f"try: main({words!r})\n"
        "finally: print(*sorted({'torch', 'onnx', 'sklearn'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "\n") and line in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "nowhere"]


def test_a_tilde_is_the_home_folder_in_every_path_and_a_name_that_is_no_users_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/photos").mkdir(parents=True)
    (tmp_path / "~nobody_of_this_name").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = choose_recipe("~/photos", "small-domain")
    assert recipe.data.source == str(tmp_path / "home/photos")
    with started("~/run", recipe):
        pass
    assert (tmp_path / "home/run/recipe.toml").is_file() and not (tmp_path / "~").exists()
    assert reopen("~/run")[0].root == tmp_path / "home/run"
    with pytest.raises(UserError, match="no images|holds no"):
        softedge.inspect("~nobody_of_this_name")  # pathlib raises RuntimeError for such a name


def test_a_run_stands_for_its_folder(toy):
    run, _ = trained(toy)
    assert os.fspath(run) == str(run) == str(run.root)
    assert reopen(run)[0].root == run.root
    with reopened(run) as (opened, _):
        assert opened.root == run.root


def test_data_may_be_a_path_in_every_function_that_takes_it_and_pixels_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for function in (softedge.inspect, softedge.plan, softedge.pretrain, softedge.deploy, softedge.label_next):
        out = {} if function in (softedge.inspect, softedge.plan) else {"out": tmp_path / "run"}
        with pytest.raises(UserError, match=f"no images in {tmp_path / 'empty'}"):
            function(tmp_path / "empty", **out)
    for function in (softedge.inspect, softedge.plan, softedge.pretrain, softedge.deploy):
        with pytest.raises(UserError, match="data is a ndarray; images are read from files: give the path"):
            function(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("given", ["ssl.epochs=3", {"ssl.epochs": 3}, [3]])
def test_values_for_the_recipe_in_another_form_than_a_list_of_texts_are_one_clear_line(toy, tmp_path, given):
    run, _ = trained(toy)
    for call in (
        lambda: softedge.probe(run, set=given),
        lambda: softedge.pretrain("digits", out=tmp_path / "a", set=given),
        lambda: softedge.deploy("digits", out=tmp_path / "a", set=given),
    ):
        with pytest.raises(UserError, match=r"^set(=.* is a (single text|mapping)| holds 3); give a list"):
            call()


def test_one_text_in_place_of_a_list_is_not_taken_letter_by_letter(toy, tmp_path):
    run, _ = trained(toy)
    for call in (
        lambda: softedge.deploy("digits", out=tmp_path / "a", targets="onnx"),
        lambda: softedge.export(run, targets="onnx"),
    ):
        with pytest.raises(UserError, match=r"give a list: targets=\['onnx'\]"):
            call()
    with pytest.raises(UserError, match=r"give a list: devices=\['local'\]"):
        softedge.deploy("digits", out=tmp_path / "a", devices="local")
