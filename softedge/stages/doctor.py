"""``softedge doctor``: what this machine can do, and what is missing and how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from softedge import registry
from softedge.errors import UserError, first_line
from softedge.export.base import open_format
from softedge.machine.provenance import environment
from softedge.progress import plural

_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_READY = "ready"


def text() -> str:
    """The machine, the export targets, what devices need, and what other packages add; a line each."""
    about = environment()
    int8 = ", ".join(_int8_instructions()) or "none"
    rows = {
        "python": f"{about['python']} on {about['os']}",
        "processor": f"{about['cpu']}, {plural(about['cores'], 'core')}; int8 instructions: {int8}",
        "versions": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "gpu": _gpu(),
        "free disk here": f"{shutil.disk_usage('.').free / 1e9:.1f} GB",
    }
    rows |= {f"target {name}": _format(name) for name in registry.FORMATS}
    for name in registry.DEVICES:
        rows |= {f"device {address}": state for address, state in _device(name).items()}
    rows["test of browser:"] = _program("chromium")
    rows |= {f"method {name}": _method(name) for name in registry.METHODS if name not in registry.METHODS.own}
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _format(name: str) -> str:
    """Whether a format can be exported to here, or what to install; of another package's also its runtime."""
    try:
        format_ = open_format(name)
        if (why := format_.missing()) or name in registry.FORMATS.own:
            return why or _READY
        return f"{_READY}, from {_package(registry.FORMATS, name)}; runtime: {format_.runtime()}"
    except Exception as error:  # somebody else's module can fail in any way
        return first_line(error)


def _device(name: str) -> dict[str, str]:
    """Addresses that need a program, and every device of another package; each with what is missing."""
    try:
        programs: Mapping[str, str] = registry.lookup(registry.DEVICES, name, "device").programs
    except Exception as error:
        return {name: first_line(error)}
    if name in registry.DEVICES.own:
        return {address: _program(program) for address, program in programs.items()}
    wanting = [state for program in programs.values() if (state := _program(program)) != _READY]
    return {name: wanting[0] if wanting else f"{_READY}, from {_package(registry.DEVICES, name)}"}


def _method(name: str) -> str:
    """Of another package's method: whether it can be imported."""
    try:
        registry.lookup(registry.METHODS, name, "method")
    except UserError as error:
        return str(error)
    return f"{_READY}, from {_package(registry.METHODS, name)}"


def _package(table: registry.Table, name: str) -> str:
    return table.package(name) or "another package"


def _program(name: str) -> str:
    return _READY if shutil.which(name) else f"needs the program {name}"


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
