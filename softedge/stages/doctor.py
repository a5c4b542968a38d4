"""``softedge doctor``: what this machine can do, and what is missing and how to get it."""

from __future__ import annotations

import shutil
from pathlib import Path

from softedge import registry
from softedge.errors import UserError
from softedge.export.base import open_format
from softedge.progress import plural
from softedge.run import environment

_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_PROGRAMS = {
    "ssh": "device ssh://...",
    "adb": "device adb://...",
    "chromium": "test of browser:",
    "qemu-aarch64-static": "device emulated:arm64",
}


def text() -> str:
    """The machine, the export targets and the programs that devices need, a line each."""
    about = environment()
    int8 = ", ".join(_int8_instructions()) or "none"
    rows = {
        "python": f"{about['python']} on {about['os']}",
        "processor": f"{about['cpu']}, {plural(about['cores'], 'core')}; int8 instructions: {int8}",
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "gpu": _gpu(),
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.1f} GB",
    }
    rows |= {f"target {name}": _ready(name) for name in registry.FORMATS}
    for program, purpose in _PROGRAMS.items():
        rows[purpose] = "ready" if shutil.which(program) else f"needs the program {program}"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _ready(name: str) -> str:
    """Whether a format can be exported to here, or what to install."""
    try:
        return open_format(name).missing() or "ready"
    except UserError as error:  # another package's format that cannot be imported
        return str(error)


def _int8_instructions() -> list[str]:
    """Instructions that multiply int8 without saturating; without them u8s8 models may answer otherwise on x86."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return []
    words = set(cpuinfo.read_text().split())
    return [name for name in _INT8 if name in words]


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none (pretraining runs on the CPU)"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names)
