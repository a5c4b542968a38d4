"""The run folder: stages talk through it, and any of them can be killed at any instant and started again.

A stage is done when its ``result.json`` is there with the same recipe section and the same input hashes. It is
written last, beside and renamed, so a half-finished stage never looks done.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from softedge import previous
from softedge.errors import ADD_FORCE, OtherSettings, UserError, quoted
from softedge.files import a_place_for, expanded, finite, make_folder, read_json, temporary_files_in, write_json
from softedge.files import atomic_path as atomic_path
from softedge.files import fsync_folder as fsync_folder
from softedge.files import sha256 as sha256
from softedge.files import size_bytes as size_bytes
from softedge.files import write_bytes as write_bytes
from softedge.files import write_text as write_text
from softedge.machine.provenance import environment
from softedge.progress import say
from softedge.records import SCHEMA, Outcome, Result

_MADE_BY = {"pretrain": "pretrain --out", "network": "export-file ... --out", "features": "label-issues"}
_PARTED = ("export", "quantize", "bench")


class Later(UserError):
    """A file of a later softedge: nothing is wrong with it."""


def read_result(path: str | Path) -> Result:
    """Read a ``result.json``; UserError when it is damaged, or written by a later softedge in another layout."""
    try:
        values = read_json(path)
        schema = values.get("schema", SCHEMA) if isinstance(values, dict) else SCHEMA
        if isinstance(schema, int) and schema > SCHEMA:
            raise Later(
                f"{path} was written by a later softedge (schema {schema}, this one reads {SCHEMA}); use that one, or "
                "give another run"
            )
        return Result.from_dict(values)
    except Later:
        raise
    except (ValueError, UserError) as error:
        folder = Path(path).parent
        part = folder.parent.name in _PARTED  # looked at beside others, so that --force stops at it, too
        remedy = f"delete {folder}, and" if part else f"{ADD_FORCE}, or delete {folder}, and"
        raise UserError(f"{path} is damaged ({error}); {remedy} repeat its stage") from error


class Run:
    """A run folder that exists. ``recipe.toml`` says what was asked; each stage has a folder of its own."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = expanded(root)

    def __fspath__(self) -> str:
        """A run stands for its folder wherever one is asked for: ``softedge.bench(softedge.deploy(...))``."""
        return str(self.root)

    def __str__(self) -> str:
        return str(self.root)

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def folder(self, stage: str) -> Path:
        """The folder of a stage, e.g. ``pretrain`` or ``export/onnx-int8`` (not created)."""
        return self.root / stage

    def result(self, stage: str) -> Result | None:
        """The finished result of a stage, or None when it was not run or not finished."""
        path = self.folder(stage) / "result.json"
        return read_result(path) if path.exists() else None

    def results(self, stage: str) -> dict[str, Result]:
        """Finished results below a stage folder, sorted: ``results("export")`` -> {"onnx-fp32": Result, ...}."""
        paths = sorted(self.folder(stage).glob("*/result.json"))
        return {path.parent.name: read_result(path) for path in paths}

    def need(self, stage: str, command: str) -> Result:
        """The result of a stage that must be done before; UserError names the command that does it."""
        result = self.result(stage)
        if result is None:
            if interrupted := self.interrupted(stage, command):
                raise UserError(interrupted)
            where = f"{'--out ' if command == 'pretrain' else ''}{quoted(self.root)}"
            raise UserError(f"{self.root} has no finished '{stage}' stage yet; run: softedge {command} {where}")
        return result

    def interrupted(self, stage: str, command: str) -> str:
        """What to do about a stage that was begun and is not finished; "" for others.  command: what does it."""
        folder = self.folder(stage)
        if not (folder / previous.BEGUN).exists() or (folder / previous.RESULT).exists():
            return ""
        where = f"{'--out ' if command == 'pretrain' else ''}{quoted(self.root)}"
        line = f"'{stage}' was interrupted; to go on, run: softedge {command} {where}"
        if not previous.is_kept(self.root, stage):
            return line
        kept = previous.folder(self.root, stage)
        return f"{line} (the finished version before it is in {kept}; to restore it, replace {folder} with it)"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder against a second softedge process; UserError when one is at work already."""
        try:
            import fcntl
        except ImportError:  # Windows: no advisory lock, the atomic writes still hold
            yield
            return
        make_folder(self.root)
        path = self.root / ".lock"
        with a_place_for(self.root):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # a pipe would wait for a reader
        with open(descriptor, "w") as lock:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(f"{path} is not a regular file; remove it")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"another softedge process is using {self.root}; wait for it to finish, or use another run"
                ) from error
            with temporary_files_in(self.root):
                previous.restore(self.root)
                yield

    def in_use(self) -> bool:
        """Whether a process, this one included, is at work in the run."""
        try:
            import fcntl

            with open(self.root / ".lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (ImportError, FileNotFoundError):  # Windows; never locked
            return False
        except OSError:
            return True
        return False


def sha256_of(run: Run, name: str) -> str:
    """sha256 of a file of the run, "absent" when it is not there.

    UserError for weights and arrays that are not those that their stage left, and when the record of the stage is
    damaged: what is made from them, or compared with them, would be wrong.
    """
    path, (stage, _, file) = run.root / name, name.rpartition("/")
    done = run.result(stage) if stage else None
    recorded = {**done.weights, **done.arrays}.get(file) if done is not None else None
    digest = sha256(path) if path.is_file() else "absent"
    if recorded in (None, digest):
        return digest
    kind, _, task = stage.partition("/")
    command = _MADE_BY.get(stage, f"{kind} --task {task}" if kind == "transfer" else stage)
    state = "is missing" if digest == "absent" else "was changed or damaged"
    raise UserError(
        f"{path} {state} since the stage '{stage}' made it (sha256 {digest[:12]}, recorded is {str(recorded)[:12]}); "
        f"bring it back, or make it again: softedge {command} {quoted(run.root)} --force"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as ``key: old -> new``."""
    lines: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {_short(a)} -> {_short(b)}")
    return lines


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def perform(
    run: Run,
    stage: str,
    work: Callable[[Path], Outcome],
    *,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, str],
    force: bool = False,
    resumable: bool = False,
    renew: bool = False,
) -> Result:
    """Do a stage once: skip it when done, refuse when it was done differently, redo it with ``force``.

    work: writes into the folder it is given and returns an ``Outcome``; ``result.json`` is written after it.
    recipe: the settings the stage depends on.  inputs: name -> sha256 of what it reads.
    renew: redo it where the inputs alone have changed (cheap stages, which follow what they read).
    resumable: keep a half-finished folder of the same recipe and inputs (``work`` resumes from it), else start clean.
    """
    folder = run.folder(stage)
    asked = json.loads(json.dumps(finite({"recipe": recipe, "inputs": inputs})))
    done, damaged = _finished(run, stage, force)
    if done is not None:
        changed = differences({"recipe": done.recipe, "inputs": done.inputs}, asked)
        if not changed and not force:
            for name in (*done.weights, *done.arrays):
                sha256_of(run, f"{stage}/{name}")
            gone = missing(run, stage, done)
            if not gone or not renew:
                say(f"{stage}: already done, skipped" + (f"; missing: {', '.join(gone)} (--force)" if gone else ""))
                return done
        elif not force and not (renew and not differences({"recipe": done.recipe}, {"recipe": asked["recipe"]})):
            raise OtherSettings(
                f"{folder} was made with other settings ({'; '.join(changed[:6])}); "
                f"{ADD_FORCE} to redo it, or use another run"
            )
    begun_path = folder / "begun.json"
    begun = _begun(begun_path)
    replaced = done is not None or damaged
    if replaced or (begun is not None and force):
        replaced &= previous.set_aside(run.root, stage, replaced)
    elif begun is not None and resumable and (changed := differences({key: begun.get(key) for key in asked}, asked)):
        raise OtherSettings(
            f"{folder} holds unfinished work with other settings ({'; '.join(changed[:6])}); "
            f"{ADD_FORCE} to start over, or use another run"
        )
    elif folder.exists() and not resumable:
        shutil.rmtree(folder)
    resumed = _earlier(folder, begun) if begun is not None and begun_path.exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start: dict[str, Any] = {"started": now, "spent": 0.0} | resumed | {"at": time.time()}
    clock = time.monotonic()
    try:
        make_folder(folder)
        write_json(begun_path, asked | {"start": start, "resumable": resumable})
        outcome = work(folder)
        result = Result(
            stage=stage,
            name=run.name,
            metrics=outcome.metrics,
            recipe=asked["recipe"],
            inputs=asked["inputs"],
            environment=environment(),
            started=start["started"],
            seconds=round(start["spent"] + time.monotonic() - clock, 3),
            details=outcome.details,
            skipped=outcome.skipped,
            weights={path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))},
            arrays={path.name: sha256(path) for path in sorted(folder.glob("*.npz"))},
            files=_listed(folder),
        )
        write_json(folder / "result.json", result.to_dict())
    except BaseException:
        # What was finished is worth more than what was hardly begun; half a training stays, to be resumed.
        done_or_half = (folder / "result.json").exists() or (resumable and previous.half(folder))
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty
        if replaced and not done_or_half:
            previous.put_back(run.root, stage)
            say(f"{stage}: not redone; what was finished before stays")
        raise
    with contextlib.suppress(FileNotFoundError):
        begun_path.unlink()
    previous.finished(run.root, stage)
    return result


def _listed(folder: Path) -> list[str]:
    """What a stage leaves behind besides its records, weights and arrays."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix not in previous.HALF)
    return [name for name in names if name not in ("begun.json", "result.json") and not name.startswith(".")]


def missing(run: Run, stage: str, done: Result) -> list[str]:
    """Those files of a finished stage that are not there any more."""
    return [name for name in done.files if not (run.folder(stage) / name).exists()]


def _finished(run: Run, stage: str, force: bool) -> tuple[Result | None, bool]:
    """The finished result, if any, and whether there is a damaged one that ``force`` replaces."""
    try:
        return run.result(stage), False
    except UserError:
        if not force:
            raise
        return None, True


def _begun(path: Path) -> dict[str, Any] | None:
    """What unfinished work was begun with; {}, which equals no settings, when that is damaged."""
    if not path.exists():
        return None
    with contextlib.suppress(UserError):
        begun = read_json(path)
        if isinstance(begun, dict):
            return begun
    return {}


def _earlier(folder: Path, begun: Mapping[str, Any]) -> dict[str, Any]:
    """When unfinished work was first started, and the seconds spent on it: a start lasted until its last file."""
    start = begun.get("start")
    if not isinstance(start, Mapping):
        return {}
    last = max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    try:
        return {"started": str(start["started"]), "spent": float(start["spent"]) + max(last - start["at"], 0.0)}
    except (KeyError, TypeError, ValueError):  # only the clock is lost
        return {}
