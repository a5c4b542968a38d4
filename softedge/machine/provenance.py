"""Where a number comes from: versions, processor, threads, system, commit of this package, and the command."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from softedge import registry

_VERSIONS_OF = ("softedge", "torch", "torchvision", "timm", "numpy")  # and the packages of every format


def environment() -> dict[str, Any]:
    """Where a number comes from: versions, processor, threads, system, commit of this package."""
    values: dict[str, Any] = {
        "versions": versions(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "git": _git_commit(),
        "command": command_line(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        values["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            values["gpu"] = torch.cuda.get_device_name()
    return values


def versions() -> dict[str, str]:
    """Installed packages that a number may depend on: those of the training, and those of every format."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {}
    of_formats = (package for entry in registry.formats() for package in entry.packages)
    for package in dict.fromkeys((*_VERSIONS_OF, *of_formats)):
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def command_line() -> str:
    """The words that started this process, as one would type them: ``softedge deploy --data 'my photos'``."""
    program = Path(sys.argv[0] if sys.argv else "")
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name or "python", *sys.argv[1:]])


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():  # an installed package inside somebody else's repository is not ours
        return None

    def git(*words: str) -> str:  # "describe --dirty" would lock and write the index of the repository
        command = ["git", "--no-optional-locks", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")
    return None
