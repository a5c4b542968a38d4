"""What a machine reports about itself: processor, ISA, cores, memory, clocks, temperatures, runtimes.

Standard library only, Python 3.8 or newer, no softedge import: this file travels to the board beside ``worker.py``.
What the system does not report is absent, never guessed.
"""

from __future__ import annotations

import glob
import os
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

# The extensions that decide which int8, fp16 and bf16 kernels a runtime picks.
NOTABLE_ISA = [
    *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme"),
]
PACKAGES = ("numpy", "Pillow", "opencv-python-headless")  # besides those of the runtimes


def describe(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Everything this machine reports; keys as in ``Device.describe``.  packages: of the runtimes, by pip's names."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    values = {
        "cpu": info.get("model name") or _sysctl("machdep.cpu.brand_string") or _arm_name(info) or platform.processor(),
        "board": _text("/proc/device-tree/model").rstrip("\0"),
        "os": platform.platform(),
        "machine": platform.machine(),
        "isa": [name for name in NOTABLE_ISA if name in flags],
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _memory(),
        "python": platform.python_version(),
        "runtimes": runtimes(packages),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        **conditions(),
    }
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def conditions(sysfs: str = "/sys") -> dict[str, Any]:
    """What changes while measuring: clocks in MHz per core, and the hottest sensor in °C, where reported."""
    clocks = [_number(p) for p in sorted(glob.glob(sysfs + "/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    zones = [_number(path) for path in glob.glob(sysfs + "/class/thermal/thermal_zone*/temp")]
    zones += [_number(path) for path in glob.glob(sysfs + "/class/hwmon/hwmon*/temp*_input")]
    # Unused sensors read 0 or nonsense; both files are in thousandths of a degree.
    degrees = [value / 1000 for value in zones if value is not None and 1000 < value < 150000]
    values: dict[str, Any] = {}
    if any(clocks):
        values["clocks_mhz"] = [round(value / 1000) for value in clocks if value]
    if degrees:
        values["temperature_c"] = max(degrees)
    return values


def runtimes(packages: Sequence[str] = ()) -> dict[str, str]:
    """Installed packages that matter here: name -> version."""
    from importlib import metadata

    versions = {}
    known = {name.lower() for name in PACKAGES}
    for name in (*PACKAGES, *(name for name in packages if name.lower() not in known)):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes."""
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpuinfo() -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _text("/proc/cpuinfo").splitlines() if ":" in line)
    info: dict[str, str] = {}
    for key, value in pairs:
        info.setdefault(key.strip(), value.strip())
    return info


def _arm_name(info: dict[str, str]) -> str:
    """ARM kernels give numbers instead of a name; the common cores of boards, from Arm's MIDR part numbers."""
    parts = {"0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57"}
    parts.update({"0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0b": "Cortex-A76", "0xd41": "Cortex-A78"})
    part = info.get("CPU part", "")
    if info.get("CPU implementer") != "0x41" or not part:
        return ""
    return "ARM " + parts.get(part, "part " + part)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    command: list[str] = ["sysctl", "-n", name]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _number(path: str) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
