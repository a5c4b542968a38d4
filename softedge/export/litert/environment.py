"""LiteRT's own Python environment: where it is, how it is made, and what runs in it.

litert-torch 0.10 pins torch below 2.15, softedge needs 2.15: they cannot share an environment. softedge makes a second
one when asked (``softedge setup litert``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from softedge.errors import UserError

SIZE = "about 7 GB on Linux"  # with the CUDA build of torch that pip picks there
PACKAGES = ("litert-torch>=0.10", "torch<2.15", "numpy>=2.0")  # tried: litert-torch 0.10.0 with torch 2.14.1
WORKER = Path(__file__).with_name("worker.py")


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
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(place)], check=True, capture_output=True, text=True
        )
        command = [str(interpreter()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no message"])[-1][:300]
        raise UserError(f"LiteRT's environment could not be made in {place}: {reason}") from error


def complete() -> bool:
    """Whether ``make`` came to its end."""
    return interpreter().exists() and any(folder().glob("[Ll]ib/**/site-packages/litert_torch"))


def work(verb: str, *arguments: Path | float, script: Path = WORKER) -> None:
    """Run the worker in LiteRT's environment; UserError with its last line when it fails.  arguments: a file first."""
    # -P: the worker's folder holds modules of softedge, which are not packages of their names.
    command = [str(interpreter()), "-P", str(script), verb, *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
        if done.returncode < 0:  # a damaged file can end LiteRT without a word
            reason = f"its process was ended by signal {-done.returncode}"
        raise UserError(f"LiteRT cannot {verb} {Path(str(arguments[0])).name}: {reason}")
