"""LiteRT's own Python environment: where it is, how it is made, and what runs in it.

litert-torch 0.10 pins torch below 2.15, softedge needs 2.15: pip installs them in no environment together.  softedge
makes a second one when asked (``softedge setup litert``).  litert-torch 0.10 works with torch 2.15 all the same, so it
borrows softedge's; where a conversion fails with that, it gets a torch of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from softedge.errors import UserError
from softedge.progress import say

SIZE = "about 1.3 GB on Linux"
OWN_TORCH = "about 6 GB more on Linux"  # with the CUDA build that pip picks there
CONVERTER = "litert-torch>=0.10"  # tried: 0.10.0 with torch 2.15.0, and with a torch 2.14.1 of its own
TORCH = "torch<2.15"
WORKER = Path(__file__).with_name("worker.py")
_BORROWED = "SOFTEDGE_TORCH"  # the folder with softedge's torch, and with the versions of what torch needs
_UNFINISHED = "softedge-unfinished"  # in the folder until the environment was tried
_LINK = f"import os, sys; sys.path[-1:-1] = filter(None, [os.environ.get({_BORROWED!r})])\n"  # before its own packages
_NEEDS = """
import importlib.metadata, re
for line in importlib.metadata.requires("litert-torch"):
    if not re.match(r"torch\\b(?!\\w|-)", line) and "extra ==" not in line:
        print(line)
"""


def folder() -> Path:
    """Where LiteRT's environment is: SOFTEDGE_LITERT, or the user's cache."""
    given = os.environ.get("SOFTEDGE_LITERT")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given).expanduser() if given else cache / "softedge" / "litert"


def interpreter() -> Path:
    return folder() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make() -> None:
    """Make the environment, anew where it is not complete."""
    place = folder()
    try:
        _called([sys.executable, "-m", "venv", "--clear", str(place)])
        (place / _UNFINISHED).touch()
        _install("--no-deps", CONVERTER)
        _install(*_called([str(interpreter()), "-c", _NEEDS]).split("\n"))
        packages = _called([str(interpreter()), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        link = Path(packages) / "softedge-torch.pth"
        link.write_text(_LINK)
        try:
            work("try", place / "tried.tflite")
        except UserError as error:
            say(f"{error}; LiteRT's environment gets a torch of its own ({OWN_TORCH})")
            link.unlink()
            _install(CONVERTER, TORCH)
            work("try", place / "tried.tflite")
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise UserError(f"LiteRT's environment could not be made in {place}: {reason}") from error
    (place / "tried.tflite").unlink(missing_ok=True)
    (place / _UNFINISHED).unlink()


def _called(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _install(*packages: str) -> None:
    _called([str(interpreter()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def complete() -> bool:
    """Whether ``make`` came to its end."""
    begun = interpreter().exists() and any(folder().glob("[Ll]ib/**/site-packages/litert_torch"))
    return begun and not (folder() / _UNFINISHED).exists()


def borrowed() -> dict[str, str]:
    """The variable by which the environment finds softedge's torch."""
    found = importlib.util.find_spec("torch")
    places = found.submodule_search_locations if found is not None else None
    return {_BORROWED: str(Path(next(iter(places))).parent)} if places else {}


def work(verb: str, *arguments: Path | float, script: Path = WORKER) -> None:
    """Run the worker in LiteRT's environment; UserError with its last line when it fails.  arguments: a file first."""
    # -P: the worker's folder holds modules of softedge, which are not packages of their names.
    command = [str(interpreter()), "-P", str(script), verb, *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean | borrowed())
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        if done.returncode < 0:  # a damaged file can end LiteRT without a word
            reason = f"its process was ended by signal {-done.returncode}"
        raise UserError(f"LiteRT cannot {verb} {Path(str(arguments[0])).name}: {reason}")
