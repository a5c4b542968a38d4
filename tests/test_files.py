"""Temporary files: inside the run, and gone by the next start whatever ended the process that made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from softedge.data import decisions, origins
from softedge.errors import UserError
from softedge.export import given
from softedge.files import atomic_path, libraries_inside, read_json, remove_leftovers, temporary_folder
from softedge.live import review_order
from softedge.recipes import files as recipes
from softedge.run import Run

WORKING = """
import os, signal, sys, tempfile
from pathlib import Path
from softedge.files import atomic_path, libraries_inside, temporary_folder
from softedge.run import Run
run = Run(sys.argv[1])
last = run.root / "a/last.pt"
with run.locked(), temporary_folder("images") as folder, libraries_inside(), atomic_path(last) as half:
    (folder / "0.jpg").write_bytes(b"x")
    half.write_bytes(b"half")
    Path(tempfile.mkdtemp(suffix=".mlpackage"), "weights").write_bytes(b"x")
    print("ready", flush=True)
    sys.stdin.read()
"""


def below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.fixture
def working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process in the middle of its work on the run tmp_path / "run"; its system's temporary folder is "system"."""
    (tmp_path / "system").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "system")},
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_removed_by_the_next_start(tmp_path: Path, working: subprocess.Popen) -> None:
    run = Run(tmp_path / "run")
    kept = run.root / "a/kept.txt"
    kept.write_text("x")
    assert len(below(run.root)) == 4 and below(tmp_path / "system") == []
    working.send_signal(signal.SIGKILL)
    working.wait()
    assert len(below(run.root)) == 4
    with run.locked():
        assert below(run.root) == ["kept.txt"]
    assert list(run.root.glob(".tmp*")) == []


def test_the_files_of_a_process_at_work_are_left_alone(tmp_path: Path, working: subprocess.Popen) -> None:
    before = below(tmp_path / "run")
    with pytest.raises(UserError, match="another softedge process"), Run(tmp_path / "run").locked():
        pass
    remove_leftovers(tmp_path / "run")  # also where nothing can be locked
    assert below(tmp_path / "run") == before != []


def test_a_finished_process_leaves_nothing(tmp_path: Path, working: subprocess.Popen) -> None:
    working.communicate(b"")
    assert working.returncode == 0
    assert below(tmp_path / "run") == ["last.pt"] and list((tmp_path / "run").glob(".tmp*")) == []


def test_temporary_folders_are_in_the_open_run_and_else_where_the_system_has_them(tmp_path: Path) -> None:
    with temporary_folder("images") as folder:
        assert folder.parent == Path(tempfile.gettempdir())
    with Run(tmp_path / "run").locked(), temporary_folder("images") as folder:
        assert folder.parent == tmp_path / "run"
        with temporary_folder("model", beside=tmp_path / "model.xml") as other:
            assert other.parent == tmp_path
        with libraries_inside():
            assert Path(tempfile.gettempdir()).parent == tmp_path / "run"
    assert not folder.exists() and Path(tempfile.gettempdir()) != tmp_path / "run"
    with libraries_inside():  # no run: nothing to do
        assert Path(tempfile.gettempdir()).is_dir()


def test_names_that_only_look_temporary_are_kept(tmp_path: Path) -> None:
    names = [".tmp-notes.txt", "tmp-1.txt", ".tmp-99999999999999999999999-x.txt", ".tmp-", "x.tmp-1-a"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert below(tmp_path) == sorted(set(names) - {".tmp-99999999999999999999999-x.txt"})


def test_a_file_that_could_not_be_finished_leaves_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("earlier")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as half:
        half.write_text("half")
        raise ZeroDivisionError
    assert below(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "earlier"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_json(tmp_path / "a.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("reader", ["labels.csv", "shrunk.jsonl", "recipe", "labels", "order"])
def test_a_pipe_in_a_files_place_is_one_line_and_no_endless_wait(reader, tmp_path):
    pipe = tmp_path / (origins.FILE if reader == "shrunk.jsonl" else reader)
    os.mkfifo(pipe)
    if reader == "shrunk.jsonl":  # what cannot be read there is left out
        assert origins.read(tmp_path) == {}
        return
    read = {
        "labels.csv": lambda: decisions.read(tmp_path),
        "recipe": lambda: recipes._read(pipe),
        "labels": lambda: given._labels(pipe, 2),
        "order": lambda: review_order.read(pipe, {}),
    }[reader]
    with pytest.raises(UserError, match="cannot be read.*not a regular file"):
        read()
