"""Reading ``torch.save``'s files: tensors, and stand-ins for the plain values that trainers keep beside them.

Nothing in a file is executed. torch reads with ``weights_only``, and what is allowed beside its own tensors is not made
either: a path, an array or a setting becomes a ``StandIn``, whatever the file asks it to do. numpy's own constructors
are left out on purpose: a crafted dtype makes them take bytes of the file for addresses.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softedge.errors import first_line


class StandIn:
    """A value that is not needed and was not made: it takes any arguments and state, and keeps none."""

    def __new__(cls, *_: Any) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _dictionary(*_: Any) -> dict[Any, Any]:
    """Of a defaultdict, without what would make its missing values."""
    return {}


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_PLAIN = (
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),  # Python 3.13: _local
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("_reconstruct", "scalar")),
    *("numpy.ndarray", "numpy.dtype"),
    *sorted({f"numpy.{kind.__name__}" for kind in np.sctypeDict.values()}),
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "bool", "tuple")),  # of a defaultdict
    *("argparse.Namespace", "types.SimpleNamespace"),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
)


def read(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU. Raises what torch raises; ``why_unread`` puts that into words."""
    with warnings.catch_warnings(), only_plain():
        warnings.simplefilter("ignore", UserWarning)  # about the kind of file: the error says it
        return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def only_plain() -> Iterator[None]:
    """Allow stand-ins, and nothing that another library in this process has allowed: that would be made."""
    allowed: list[Any] = [(StandIn, name) for name in _PLAIN] + [(_dictionary, "collections.defaultdict")]
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        since = set(torch.serialization.get_safe_globals()).difference(allowed)  # by an import of torch's
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*before, *since])


_NAMED = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)")
_PLACE = re.compile(r"\[enforce fail [^]]*\][ .]*")
_ALONE = "save model.state_dict() alone"


def why_unread(error: Exception) -> str:
    """The reason in one line, without torch's advice to load the file in an unsafe way."""
    text = str(error)
    if named := _NAMED.search(text):
        return f"it holds {named[1][:100]}, which is code and is not loaded; {_ALONE}"
    if "TorchScript" in text:
        return f"it holds a TorchScript program, which is code and is not loaded; {_ALONE}"
    if "Weights only load failed" in text or "weights_only" in text:
        reason = text.partition("WeightsUnpickler error:")[2].strip() or "not a state dict"
        return f"torch.save did not write it as plain weights: {reason.splitlines()[0][:100].rstrip('. ')}; {_ALONE}"
    said = _PLACE.sub("", first_line(error))
    return said.partition(". ")[0]  # a second sentence is for developers of torch
