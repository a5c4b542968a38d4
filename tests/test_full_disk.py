"""A file that cannot be written further is one line that names it: a full disk, a quota, a limit on the size of files.

Tried with the limit (``ulimit -f``), which any process may set for itself; the other two differ in the error's number.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import SPEC
from torch import nn

from softedge import run
from softedge.cli import main
from softedge.errors import exit_code_and_line
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.files import atomic_path, refuse_full, temporary_folder, write_bytes, write_json
from softedge.records import Outcome
from softedge.run import Run, perform
from softedge.stages.export import export_or_skip
from softedge.weights import checkpoints

resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")

LIMIT = 200_000  # bytes


@pytest.fixture
def limited() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limited")
def test_a_file_beyond_the_limit_is_one_line_with_its_name(tmp_path, monkeypatch, capsys):
    from softedge.stages import doctor

    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    monkeypatch.setattr(doctor, "text", lambda: write_bytes(path, bytes(LIMIT + 1)))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {path} became larger than this system lets files become; raise the limit (ulimit -f unlimited), or "
        "use a folder on another file system, and run it again\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"] and path.read_bytes() == b"before"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_by_the_file_that_was_written(tmp_path, monkeypatch, number):
    def full(path: Path, data: bytes) -> int:
        raise OSError(number, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError) as caught:
        write_bytes(tmp_path / "a.bin", b"x")
    line = f"error: the disk is full ({tmp_path / 'a.bin'}); free some space, and run it again"
    assert exit_code_and_line(caught.value) == (2, line)
    with pytest.raises(OSError) as caught, temporary_folder("x", beside=tmp_path / "b"):
        full(tmp_path, b"")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("tensors", [1, 50])
def test_a_checkpoint_that_does_not_fit_says_why_and_leaves_the_earlier_one(tmp_path, tensors):
    """torch closes its archive after the write that failed, which fails as well, as a RuntimeError without a number."""
    path = tmp_path / "last.pt"
    checkpoints.write(path, {"step": torch.tensor(1)})
    with pytest.raises(OSError) as caught:
        checkpoints.write(path, {str(i): torch.rand(LIMIT // tensors) for i in range(tensors)})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert checkpoints.read(path) == {"step": torch.tensor(1)}


@pytest.mark.usefixtures("limited")
def test_a_library_that_hides_a_full_disk_is_not_believed(tmp_path):
    def hidden() -> Outcome:
        (tmp_path / "half").write_bytes(b"x")
        raise RuntimeError("Unknown error occurred while writing data to the file")

    with pytest.raises(OSError) as caught:
        export_or_skip("toy-fp32", hidden, tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_with_room_on_the_disk_the_librarys_reason_stands(tmp_path):
    def failing() -> Outcome:
        raise RuntimeError("no kernel for 'pad'")

    refuse_full(tmp_path)
    assert export_or_skip("toy-fp32", failing, tmp_path).skipped == {"model": "RuntimeError: no kernel for 'pad'"}
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(("target", "package"), [("coreml", "coremltools"), ("openvino", "openvino")])
def test_a_model_file_that_does_not_fit_is_no_fault_of_the_network(tmp_path, target, package):
    pytest.importorskip(package)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 200))  # 614 kB of weights
    deployed = Deployed(network.eval(), SPEC, labels=tuple(f"class {i}" for i in range(200)))
    with pytest.raises(OSError) as caught:
        open_format(target).convert(deployed, "fp32", np.zeros((0, 16, 16, 3), np.uint8), tmp_path)
    assert caught.value.errno == errno.EFBIG and caught.value.filename


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("inside", ["a file", "a folder"])
def test_an_array_that_does_not_fit_is_a_full_disk_though_numpy_gives_no_number(tmp_path, inside):
    """ "1102848 requested and 147328 written" passed for a bug of ours."""
    array = np.zeros(2 * LIMIT, np.uint8)
    with pytest.raises(OSError) as caught:
        if inside == "a file":
            with atomic_path(tmp_path / "a.npy") as path, open(path, "wb") as file:
                np.save(file, array)
        else:
            with temporary_folder("images", beside=tmp_path / "x") as folder:
                np.save(folder / "images.npy", array)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("resumable", "at"), [(False, "begun.json"), (True, "begun.json"), (False, "result.json")])
def test_what_was_finished_stays_where_the_disk_is_full_when_it_is_done_again(tmp_path, monkeypatch, resumable, at):
    """--force puts the finished stage aside first; the run must not be left without it."""

    def work(folder: Path) -> Outcome:
        (folder / "weights.bin").write_bytes(b"days")
        return Outcome()

    do = {"recipe": {}, "inputs": {}, "resumable": resumable}
    perform(Run(tmp_path), "probe", work, **do)

    def full(path: Path, values: object) -> None:
        if path.name == at:
            raise OSError(errno.ENOSPC, "full", str(path))
        write_json(path, values)

    monkeypatch.setattr(run, "write_json", full)
    with pytest.raises(OSError):
        perform(Run(tmp_path), "probe", work, **do, force=True)
    assert Run(tmp_path).result("probe") is not None
    assert (tmp_path / "probe/weights.bin").read_bytes() == b"days"
