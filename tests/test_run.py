"""The run folder: done is skipped, changed is refused, killed is repeated, nothing is half written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from softedge import previous
from softedge.errors import UserError, exit_code_and_line
from softedge.records import Outcome
from softedge.run import Run, atomic_path, differences, perform, sha256, write_json, write_text


def work(calls: list[Path]):
    def run(folder: Path) -> Outcome:
        calls.append(folder)
        (folder / "made.txt").write_text("x")
        return Outcome({"top1": 0.5})

    return run


def test_a_finished_stage_is_skipped(tmp_path):
    calls: list[Path] = []
    run = Run(tmp_path / "r")
    first = perform(run, "probe", work(calls), recipe={"a": 1}, inputs={"x": "h"})
    again = perform(run, "probe", work(calls), recipe={"a": 1}, inputs={"x": "h"})
    assert len(calls) == 1
    assert again == first == run.result("probe")


@pytest.mark.parametrize("name", ["weights.safetensors", "features.npz"])
def test_a_finished_stage_whose_file_is_gone_is_not_called_done(tmp_path, name):
    run = Run(tmp_path / "r")

    def made(folder: Path) -> Outcome:
        (folder / name).write_bytes(b"x")
        return Outcome()

    perform(run, "probe", made, recipe={}, inputs={})
    (run.folder("probe") / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing since the stage 'probe' made it .* --force"):
        perform(run, "probe", made, recipe={}, inputs={})
    perform(run, "probe", made, recipe={}, inputs={}, force=True)
    assert (run.folder("probe") / name).is_file()


@pytest.mark.parametrize("renew", [False, True])
def test_another_file_of_a_finished_stage_that_is_gone_is_named_and_made_again_where_that_is_cheap(
    tmp_path, capsys, renew
):
    calls: list[Path] = []
    run = Run(tmp_path / "r")
    perform(run, "map", work(calls), recipe={}, inputs={}, renew=renew)
    assert run.need("map", "map").files == ["made.txt"]
    (run.folder("map") / "made.txt").unlink()
    capsys.readouterr()
    perform(run, "map", work(calls), recipe={}, inputs={}, renew=renew)
    assert (run.folder("map") / "made.txt").exists() == renew == (len(calls) == 2)
    assert ("already done, skipped; missing: made.txt (--force)" in capsys.readouterr().err) == (not renew)


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "a" / "b", "x")
    line = f"error: {tmp_path / 'a'} cannot be read or written (File exists); move it away, or use another name"
    assert exit_code_and_line(caught.value) == (2, line)


@pytest.mark.parametrize(("recipe", "inputs"), [({"a": 2}, {"x": "h"}), ({"a": 1}, {"x": "other"})])
def test_a_stage_made_with_other_settings_is_refused_and_the_difference_shown(tmp_path, recipe, inputs):
    run = Run(tmp_path / "r")
    perform(run, "probe", work([]), recipe={"a": 1}, inputs={"x": "h"})
    with pytest.raises(UserError, match=r"(recipe.a: 1 -> 2|inputs.x: \"h\" -> \"other\").*--force"):
        perform(run, "probe", work([]), recipe=recipe, inputs=inputs)


def test_force_redoes_a_stage_and_keeps_the_previous_one(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "probe", work([]), recipe={"a": 1}, inputs={})
    perform(run, "probe", work([]), recipe={"a": 2}, inputs={}, force=True)
    assert run.result("probe").recipe == {"a": 2}
    kept = json.loads((run.root / ".previous" / "probe" / "result.json").read_text())
    assert kept["recipe"] == {"a": 1}


def test_a_stage_killed_half_way_starts_clean_and_a_resumable_one_goes_on(tmp_path):
    run = Run(tmp_path / "r")

    def dies(folder: Path) -> Outcome:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    seen: list[bool] = []

    def looks(folder: Path) -> Outcome:
        seen.append((folder / "half.txt").exists())
        return Outcome()

    for resumable in (False, True):
        with pytest.raises(KeyboardInterrupt):
            perform(run, f"s{resumable}", dies, recipe={"a": 1}, inputs={}, resumable=resumable)
        assert run.result(f"s{resumable}") is None
        perform(run, f"s{resumable}", looks, recipe={"a": 1}, inputs={}, resumable=resumable)
    assert seen == [False, True]


def test_an_interrupted_stage_that_cleaned_up_leaves_no_empty_folder(tmp_path):
    run = Run(tmp_path / "r")

    def interrupted(folder: Path) -> Outcome:
        (folder / "begun.json").unlink()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(run, "export/onnx-int8", interrupted, recipe={}, inputs={})
    assert not run.folder("export/onnx-int8").exists()


def test_the_seconds_of_a_resumed_stage_count_its_earlier_starts(tmp_path):
    run = Run(tmp_path / "r")

    def dies_after_a_checkpoint(folder: Path) -> Outcome:
        checkpoint = folder / "last.pt"
        checkpoint.write_text("half")
        later = (folder / "begun.json").stat().st_mtime + 100
        os.utime(checkpoint, (later, later))
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            perform(run, "pretrain", dies_after_a_checkpoint, recipe={}, inputs={}, resumable=True)
    (run.folder("pretrain") / "last.pt").unlink()  # its time lies ahead of the third start
    result = perform(run, "pretrain", work([]), recipe={}, inputs={}, resumable=True)
    assert 99 < result.seconds < 102, "one interrupted start of 100 s; the file that told of the second is gone"
    assert perform(run, "probe", work([]), recipe={}, inputs={}).seconds < 1


def test_unfinished_work_of_another_recipe_is_not_resumed(tmp_path):
    run = Run(tmp_path / "r")

    def dies(folder: Path) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(run, "pretrain", dies, recipe={"lr": 1}, inputs={}, resumable=True)
    with pytest.raises(UserError, match=r"unfinished work.*lr: 1 -> 2"):
        perform(run, "pretrain", work([]), recipe={"lr": 2}, inputs={}, resumable=True)


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_never_holds_nan(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "rows": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "rows": [None, 1.5]}


def test_a_folder_hash_depends_on_names_and_contents(tmp_path):
    for name, files in (("a", {"x": "1"}), ("b", {"y": "1"}), ("c", {"x": "2"}), ("d", {"x": "1"})):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    hashes = [sha256(tmp_path / name) for name in "abcd"]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3


def test_differences_name_the_key_and_both_values():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == [
        "a.b: 1 -> 3",
        "c: 2 -> absent",
        "d: absent -> 4",
    ]


def test_two_processes_do_not_work_on_one_run(tmp_path):
    run = Run(tmp_path / "r")
    with run.locked(), pytest.raises(UserError, match="another softedge process"), Run(tmp_path / "r").locked():
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_the_lock_is_refused_and_not_waited_for(tmp_path):
    run = Run(tmp_path / "r")
    run.root.mkdir()
    os.mkfifo(run.root / ".lock")
    with pytest.raises(UserError, match=r"\.lock is not a regular file; remove it"), run.locked():
        pass


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        (["/opt/bin/softedge", "deploy", "--data", "my photos"], "softedge deploy --data 'my photos'"),
        (["/opt/lib/softedge/__main__.py", "report", "runs/a"], "softedge report runs/a"),
        ([""], "python"),
    ],
)
def test_every_stage_records_the_command_as_one_would_type_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], recorded: str
) -> None:
    monkeypatch.setattr("sys.argv", words)
    result = perform(Run(tmp_path), "probe", lambda folder: Outcome(), recipe={}, inputs={})
    assert result.environment["command"] == recorded


def test_a_refused_redo_leaves_the_finished_stage_and_what_was_kept_before_it(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "probe", work([]), recipe={"a": 1}, inputs={})

    def refuses(folder: Path) -> Outcome:
        raise UserError("the photos are gone")

    for _ in range(2):
        with pytest.raises(UserError, match="photos are gone"):
            perform(run, "probe", refuses, recipe={"a": 2}, inputs={}, force=True)
        assert run.result("probe").recipe == {"a": 1} and (run.folder("probe") / "made.txt").exists()
    perform(run, "probe", work([]), recipe={"a": 1}, inputs={})  # done before


def test_half_a_new_training_stays_and_the_finished_one_is_kept_however_often_it_is_started_anew(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "pretrain", work([]), recipe={"a": 1}, inputs={}, resumable=True)

    def stops(folder: Path) -> Outcome:
        (folder / "last.pt").write_text("half")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            perform(run, "pretrain", stops, recipe={"a": 2}, inputs={}, resumable=True, force=True)
        assert (run.folder("pretrain") / "last.pt").exists() and run.result("pretrain") is None
        kept = json.loads((run.root / ".previous" / "pretrain" / "result.json").read_text())
        assert kept["recipe"] == {"a": 1}, "never replaced by an unfinished one"


def test_a_redo_that_fails_with_nothing_to_resume_from_puts_the_finished_one_back_at_once(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "pretrain", work([]), recipe={"a": 1}, inputs={}, resumable=True)
    before = sorted(path.name for path in run.folder("pretrain").iterdir())

    def explodes(folder: Path) -> Outcome:
        (folder / "metrics.jsonl").write_text("the loss is nan")
        raise UserError("the loss is nan")

    with pytest.raises(UserError):
        perform(run, "pretrain", explodes, recipe={"a": 2}, inputs={}, resumable=True, force=True)
    assert run.result("pretrain").recipe == {"a": 1}
    assert sorted(path.name for path in run.folder("pretrain").iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize("folder", ["/proc/softedge", "/proc/softedge/below", "/proc"])
def test_a_folder_where_the_system_lets_nobody_write_is_one_line(folder):
    def lock() -> None:
        with Run(folder).locked():
            pass

    for write in (lock, lambda: write_text(f"{folder}/report.html", "x")):
        with pytest.raises(UserError, match=r"/proc.* cannot be made: .*use another folder"):
            write()


def killed(run: Run, stage: str, file: str, **options) -> None:
    """A redo in another process, which is gone when it has written ``file``."""

    def dies(folder: Path) -> Outcome:
        (folder / file).write_text("half")
        os._exit(9)

    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException), run.locked():
            perform(run, stage, dies, recipe={"a": 2}, inputs={}, force=True, **options)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@forks
@pytest.mark.parametrize("resumable", [False, True])
def test_what_a_killed_process_was_redoing_is_back_at_the_next_start(tmp_path, capsys, resumable):
    """Hardly begun, a resumable stage has nothing to resume from, too."""
    run = Run(tmp_path / "r")
    first = perform(run, "export/onnx-fp32", work([]), recipe={"a": 1}, inputs={}, resumable=resumable)
    for _ in range(2):
        killed(run, "export/onnx-fp32", "model.onnx", resumable=resumable)
        assert run.result("export/onnx-fp32") is None
        with run.locked():
            assert run.result("export/onnx-fp32") == first
        said = "export/onnx-fp32: doing it again was interrupted; what was finished before is back"
        assert said in capsys.readouterr().err
        assert sorted(path.name for path in run.folder("export/onnx-fp32").iterdir()) == ["made.txt", "result.json"]


@forks
def test_a_kill_between_setting_aside_and_beginning_loses_nothing(tmp_path, monkeypatch):
    run = Run(tmp_path / "r")
    first = perform(run, "probe", work([]), recipe={"a": 1}, inputs={})
    with monkeypatch.context() as patch:
        patch.setattr("softedge.run.make_folder", lambda path: os._exit(9) if path.name == "probe" else None)
        killed(run, "probe", "")
    assert not run.folder("probe").exists()
    with run.locked():
        assert run.result("probe") == first


@forks
def test_half_a_killed_training_is_kept_to_be_resumed_and_the_finished_one_is_named(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "finetune", work([]), recipe={"a": 1}, inputs={}, resumable=True)
    killed(run, "finetune", "checkpoint-0.pt", resumable=True)
    with run.locked():
        assert (run.folder("finetune") / "checkpoint-0.pt").read_text() == "half"
    with pytest.raises(UserError) as caught:
        run.need("finetune", "finetune")
    assert str(caught.value) == (
        f"'finetune' was interrupted; to go on, run: softedge finetune {run.root} (the finished version before it is "
        f"in {run.root}/.previous/finetune; to restore it, replace {run.root}/finetune with it)"
    )
    perform(run, "finetune", work([]), recipe={"a": 2}, inputs={}, resumable=True)  # resumed to its end
    shutil.rmtree(run.folder("finetune"))
    with run.locked():  # who removes a finished stage wants no other
        assert not run.folder("finetune").exists()


def test_a_version_that_was_set_aside_for_good_is_not_put_back(tmp_path):
    run = Run(tmp_path / "r")
    perform(run, "export/onnx-fp32", work([]), recipe={"a": 1}, inputs={})
    assert previous.set_aside(run.root, "export/onnx-fp32")
    with run.locked():
        assert not run.folder("export/onnx-fp32").exists()


def test_a_run_is_in_use_while_it_is_locked(tmp_path):
    run = Run(tmp_path / "r")
    assert not run.in_use()
    with run.locked():
        assert run.in_use()
    assert not run.in_use()
