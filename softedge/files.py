"""Files: written all at once or not at all, temporary ones that a later start removes, and the cache folder.

Everything temporary in a folder of softedge is called ``.tmp-<process>...``. A process that was killed leaves some; the
next one that opens the run deletes those whose process has ended.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softedge.errors import NO_SPACE, UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

_SPACE = 64 << 20  # bytes that must fit before a failed write is put down to something else than a full disk
_LEFTOVER = re.compile(r"\.tmp-(\d+)(?:-.*)?")
_run_folders: list[Path] = []  # of the runs that this process holds


def cache_folder() -> Path:
    """``$SOFTEDGE_CACHE``, else ``$XDG_CACHE_HOME/softedge``, else ``~/.cache/softedge``.

    For what can be made or fetched again: runtimes, decoded images.
    """
    if chosen := os.environ.get("SOFTEDGE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "softedge"


def compiler_caches() -> dict[str, str]:
    """Environment variables that send what torch and Triton compile into ``cache_folder``; {} where it is read-only.

    Importing torch's compiler makes a folder in TMPDIR already, and Triton writes into the home folder.
    """
    try:
        folder = cache_folder() / "compiled"
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, RuntimeError):  # no home folder
        return {}
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return {}
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder / "torchinductor"), "TRITON_CACHE_DIR": str(folder / "triton")}


def _temporary_prefix(what: str) -> str:
    return f".tmp-{os.getpid()}-{what}-"


@contextlib.contextmanager
def temporary_folder(what: str, beside: Path | None = None) -> Iterator[Path]:
    """An empty folder, removed afterwards: beside a path, else in the run that is open, else where the system has them.

    what: a word for its name.
    """
    inside = beside.parent if beside else _run_folders[-1] if _run_folders else None
    prefix = _temporary_prefix(what) if inside else f"softedge-{what}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=inside) as folder, _full_disk_named(inside or Path(folder)):
        yield Path(folder)


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let ``temporary_folder`` make its folders in ``folder``; what killed processes have left there is removed first.

    Only while nobody else works in it: under the lock of a run.
    """
    remove_leftovers(folder)
    _run_folders.append(folder.resolve())
    try:
        yield
    finally:
        shutil.rmtree(_libraries(_run_folders.pop()), ignore_errors=True)


def _libraries(run: Path) -> Path:
    return run / f".tmp-{os.getpid()}-libraries"


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` as the home folder: no shell expands that of ``--out=~/runs``, and Python never does.

    A name like ``~old``, which is no user's, stays as it is.
    """
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def libraries_inside() -> Iterator[None]:
    """Let a library make its temporary files in the run that is open, where they stay until that is closed.

    coremltools keeps such files until the process ends. Not for all code: the sockets of multiprocessing are temporary
    files too, and their paths must be short.
    """
    if not _run_folders:
        yield
        return
    folder = _libraries(_run_folders[-1])
    folder.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders below ``folder`` whose process has ended."""
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _LEFTOVER.fullmatch(name)
            if match is None or _alive(int(match[1])):
                continue
            path = Path(root, name)
            if name in folders:
                folders.remove(name)
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if process == os.getpid() or os.name == "nt":  # there os.kill ends the process, whatever the signal
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def a_place_for(path: Path) -> Iterator[None]:
    """Turn the "No such file" of a system that lets nobody make files there, as in /proc, into a UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{path} cannot be made: this system keeps no files of others in {_nearest(path)}; use another folder"
        ) from error


def _nearest(path: Path) -> Path:
    return next((above for above in path.absolute().parents if above.exists()), path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; nothing happens when it is there. UserError where none can be made."""
    with a_place_for(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync and rename it into place, on failure remove it."""
    path = Path(path)
    make_folder(path.parent)
    with a_place_for(path):
        handle, temporary = tempfile.mkstemp(prefix=_temporary_prefix(path.name), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        with _full_disk_named(path):
            yield Path(temporary)
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Give the system's error of a full disk the name of what was written: a write knows none."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and error.filename is None:
            error.filename = str(path)
        if error.errno is None and "requested and" in str(error):  # NumPy, of a short write: it knows no number
            refuse_full(path if path.is_dir() else path.parent)
        raise


def refuse_full(folder: Path) -> None:
    """Raise the system's own OSError where no 64 MB more can be written into ``folder``; else nothing happens.

    For libraries that report a full disk as something else.
    """
    block = bytes(1 << 20)
    with _full_disk_named(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_SPACE // len(block)):
            if file.write(block) < len(block):  # the next write says why
                file.write(block)


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def csv_table(kind: type[DataclassInstance], rows: Iterable[DataclassInstance]) -> str:
    """Rows of one dataclass as CSV, its fields as the header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(kind))
    writer.writerows(dataclasses.astuple(row) for row in rows)
    return out.getvalue()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically. NaN and infinities become null: strict readers refuse them."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Plain values as JSON has them: NaN and infinities become null, NumPy's and torch's scalars Python's."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy or torch scalar
        return finite(value.item())
    return value


def read_text(path: str | Path, encoding: str = "utf-8-sig", errors: str = "strict") -> str:
    """A text file, line ends unchanged; OSError unless it is a regular file: reading a pipe would block."""
    _refuse_other_than_files(path)
    with open(path, newline="", encoding=encoding, errors=errors) as file:
        return file.read()


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; OSError unless it is a regular file: reading a pipe would block."""
    _refuse_other_than_files(path)
    return Path(path).read_bytes()


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8 by the names of its header; UserError when it is not there or damaged."""
    try:
        return list(csv.DictReader(io.StringIO(read_text(path, "utf-8"), newline="")))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from error


def _refuse_other_than_files(path: str | Path) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; UserError when it is not there or damaged."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from error


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read a .npz file: name -> array; UserError when it is not there or damaged."""
    import numpy as np

    try:
        _refuse_other_than_files(path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # damage raises a dozen kinds: of zipfile, of zlib, of NumPy's header, of memory
        raise UserError(f"{path} cannot be read as arrays ({type(error).__name__}: {error})") from error


def sha256(path: str | Path) -> str:
    """Hash a file, or a folder by its sorted relative paths and contents (an .mlpackage is a folder).

    UserError for a pipe or a device in the place of a file: reading it would not end.
    """
    path, digest = Path(path), hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(file.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(sha256(file)))
        return digest.hexdigest()
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder; put the file back, or make it again")
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size_bytes(path: str | Path) -> int:
    """Size of a file, or of all files in a folder."""
    path = Path(path)
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
