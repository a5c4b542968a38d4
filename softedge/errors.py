"""The ways a command ends early: on purpose in one line, or by a bug, whose traceback goes to a file."""

from __future__ import annotations

import contextlib
import datetime
import errno
import math
import numbers
import operator
import os
import shlex
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType

from softedge.progress import on_one_line

BUG = 70  # the exit code of a bug: EX_SOFTWARE of BSD's sysexits.h, since 1 says that a gate failed
ADD_FORCE = "add --force (Python: force=True)"
_KEPT = 10  # tracebacks
_IN_THE_WAY = (
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EIO, errno.ESTALE),
)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what ``no_space`` puts into words


class UserError(Exception):
    """Something the user can fix: one line that says what was asked, what was found, what to do. Exit code 2."""


def first_line(error: BaseException, at_most: int = 160) -> str:
    """The first line of what a library says, cut; the kind of the error when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:at_most]


def quoted(path: object) -> str:
    """A path in a command that a message gives: as a shell takes it, whatever is in its name."""
    return shlex.quote(str(path))


class Refused(UserError):
    """A file that was made and is not good enough to keep: far from PyTorch, or int8 in name only."""


class CannotRunHere(UserError):
    """A finished file that the runtime of this machine cannot run: nothing is wrong with it, but it stays unchecked."""


class OtherSettings(UserError):
    """A stage was done with other settings than those asked for, and nobody said to do it again."""


class GateFailed(Exception):
    """The work was done and the answer is no: a check, a verification or a gate failed. Exit code 1.

    lines: one for each reason, with the files that it holds for.
    """

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


class Interrupted(Exception):
    """Stopped by a signal after everything was saved; the message says how to resume. Exit code 130 (SIGTERM: 143)."""

    def __init__(self, message: str, code: int = 130):
        super().__init__(message)
        self.code = code


class Terminated(BaseException):
    """SIGTERM arrived, raised by ``terminating``. No Exception: no stage may take it for a failure of its own."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Turn SIGTERM into ``Terminated``, so that files are closed and the user is told; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker ends as if this were not here
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_signals(worker: int) -> None:
    """In a loader process: Ctrl-C and SIGTERM are for the training, which writes a checkpoint and ends its loaders.

    Both may reach every process of a group: from a terminal, ``timeout`` or a batch system. SIGTERM from the training
    itself ends the process, and so does a second one from elsewhere. Where the sender cannot be told (macOS), any does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # the thread takes it
        threading.Thread(target=_end_when_asked, args=(os.getppid(),), daemon=True).start()


def _end_when_asked(parent: int) -> None:
    for _ in range(2):
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os._exit(0)
    os._exit(128 + signal.SIGTERM)


def need_lists(**given: object) -> None:
    """UserError where a function was given one text, or a mapping, for a list of texts: ``set="ssl.epochs=5"``."""
    for name, value in given.items():
        if isinstance(value, str):
            raise UserError(f"{name}={value!r} is a single text; give a list: {name}=[{value!r}]")
        if isinstance(value, Mapping):
            items = [f"{key}={item}" for key, item in value.items()]
            raise UserError(f"{name}={value!r} is a mapping; give a list of texts: {name}={items!r}")
        if isinstance(value, Iterable) and (others := [item for item in value if not isinstance(item, str)]):
            raise UserError(f"{name} holds {others[0]!r}; give a list of texts")


def whole(name: str, value: object, least: int = 1, why: str = "") -> int:
    """``value`` as a plain int, also of NumPy's; UserError for what is no whole number of ``least`` or more.

    why: a clause that ends the line.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        found = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(f"{name} is {value!r}; give a whole number, {least} or more{why}") from None
    if found < least:
        raise UserError(f"{name} is {found}; give a whole number, {least} or more{why}")
    return found


def positive(name: str, value: object) -> float:
    """``value`` as a plain int or float, also of NumPy's; UserError for what is no finite number above 0."""
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{name} is {value!r}; give a number above 0")
    return int(number) if isinstance(value, numbers.Integral) else number


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else a list of what is known."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known))}"


def exit_code_and_line(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the one line for an expected error, one for each reason of a gate; None for a bug."""
    if isinstance(error, GateFailed):
        return 1, "\n".join(on_one_line(f"failed: {line}") for line in error.lines)
    answer = _code_and_text(error)
    return answer and (answer[0], on_one_line(answer[1]))


def _code_and_text(error: BaseException) -> tuple[int, str] | None:
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, Interrupted):
        return error.code, f"stopped: {error}"
    if isinstance(error, KeyboardInterrupt | Terminated):
        code = 143 if isinstance(error, Terminated) else 130
        return code, "stopped: what was finished is kept; run the same command again to go on"
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone: softedge ... | head
        return 141, ""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return 2, f"error: {no_space(error)}, and run it again"
    if isinstance(error, OSError) and error.errno in _IN_THE_WAY:
        name = error.filename2 or error.filename or "a file"
        return 2, f"error: {name} cannot be read or written ({error.strerror}); move it away, or use another name"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return 2, "error: too many files are open at a time; raise the limit (ulimit -n 4096), and run it again"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return 2, f"error: no permission to write or read {error.filename} ({error.strerror}); use another folder"
    return None


def no_space(error: OSError, path: Path | None = None) -> str:
    """What to say of an error in ``NO_SPACE``: what was written where (``path`` if the error has none), what to do."""
    name = error.filename or path
    if error.errno == errno.EFBIG:
        return (
            f"{name or 'a file'} became larger than this system lets files become; raise the limit (ulimit -f "
            "unlimited), or use a folder on another file system"
        )
    return f"the disk is full ({name or 'while writing'}); free some space"


def bug_line(error: BaseException, command: str, folder: Path) -> str:
    """Write the traceback of an unexpected error into a file in ``folder``, and return the one line that names it.

    The ten newest are kept. Where nothing can be written, the traceback follows the line.
    """
    text = "".join(traceback.format_exception(error))
    message = " ".join(str(error).split())
    line = on_one_line(f"error: unexpected {type(error).__name__}{f': {message[:200]}' if message else ''}")
    now = datetime.datetime.now()
    path = folder / f"{now:%Y-%m-%d-%H%M%S}-{os.getpid()}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{command}\n{now.isoformat(timespec='seconds')}\n\n{text}", errors="replace")
        for old in sorted(folder.glob("*.txt"))[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return f"{line}; please report it with this traceback:\n{text}"
    return f"{line}; please report it with the traceback in {path} (--traceback prints it here)"
