"""What an Android phone reports about itself, through one shell script: model, chip, clocks, temperatures, battery.

What a phone does not report is absent, never guessed.
"""

from __future__ import annotations

import re
from typing import Any

from softedge.bench.board.system import NOTABLE_ISA

_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
# What changes while measuring.  Phones differ in what the shell user may read; a refusal is an absent number.
CONDITIONS = f"""
echo '== clocks'; cat {_CPUFREQ}/scaling_cur_freq 2>/dev/null
echo '== zones'; for zone in /sys/class/thermal/thermal_zone*; do
  echo "$(cat $zone/temp 2>/dev/null) $(cat $zone/type 2>/dev/null)"; done
echo '== thermal'; dumpsys thermalservice 2>/dev/null
echo '== battery'; dumpsys battery 2>/dev/null
echo '== screen'; dumpsys power 2>/dev/null | grep mWakefulness=; true
"""
SCRIPT = f"""
echo '== properties'; getprop
echo '== cpuinfo'; cat /proc/cpuinfo
echo '== memory'; cat /proc/meminfo
echo '== kernel'; uname -r
echo '== highest'; cat {_CPUFREQ}/cpuinfo_max_freq 2>/dev/null
echo '== governor'; cat {_CPUFREQ}/scaling_governor 2>/dev/null
{CONDITIONS}
"""
_THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CPU_SENSOR, _SKIN_SENSOR = 0, 3  # android.os.Temperature


def sections(text: str) -> dict[str, list[str]]:
    """The lines of a script's answer below each ``== name``."""
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.replace("\r", "").splitlines():
        if line.startswith("== "):
            current = parts.setdefault(line[3:].strip(), [])
        elif line.strip():
            current.append(line.strip())
    return parts


def properties(lines: list[str]) -> dict[str, str]:
    """getprop's ``[key]: [value]`` lines."""
    pairs = (re.fullmatch(r"\[(.+?)\]: \[(.*)\]", line) for line in lines)
    return {pair[1]: pair[2] for pair in pairs if pair}


def describe(text: str) -> dict[str, Any]:
    """The answer to SCRIPT in the form of ``Device.describe``."""
    parts = sections(text)
    known = properties(parts.get("properties", []))
    info: dict[str, str] = {}
    for line in parts.get("cpuinfo", []):
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    flags = set(info.get("Features", "").split())
    memory = next((line for line in parts.get("memory", []) if line.startswith("MemTotal")), "")
    values: dict[str, Any] = {
        "cpu": _chip(known) or info.get("Hardware", ""),
        "model": " ".join(filter(None, (known.get("ro.product.manufacturer"), known.get("ro.product.model")))),
        "os": f"Android {known['ro.build.version.release']}" if "ro.build.version.release" in known else "",
        "api_level": _whole(known.get("ro.build.version.sdk", "")),
        "security_patch": known.get("ro.build.version.security_patch", ""),
        "machine": known.get("ro.product.cpu.abi", ""),
        "kernel": " ".join(parts.get("kernel", [])),
        "isa": [name for name in NOTABLE_ISA if name in flags],
        "cores": sum(line.split(":")[0].strip() == "processor" for line in parts.get("cpuinfo", [])),
        "memory_bytes": int(memory.split()[1]) * 1024 if memory else None,
        "highest_clocks_mhz": [khz // 1000 for khz in _numbers(parts.get("highest", []))],
        "governor": ", ".join(sorted(set(parts.get("governor", [])))),
        "emulated": emulated(known) or None,
        **conditions(text),
    }
    return {key: value for key, value in values.items() if value not in (None, "", [], 0)}


def _chip(known: dict[str, str]) -> str:
    """The name of the chip; before Android 12 the board's platform is the nearest thing."""
    maker, model = known.get("ro.soc.manufacturer", ""), known.get("ro.soc.model", "")
    if model:
        return f"{maker} {model}".strip()
    return known.get("ro.board.platform", "")


def emulated(known: dict[str, str]) -> bool:
    """Whether this is an emulator, as its properties say."""
    return "1" in (known.get("ro.kernel.qemu"), known.get("ro.boot.qemu"))


def conditions(text: str) -> dict[str, Any]:
    """The answer to CONDITIONS: clocks in MHz per core, temperatures in degrees Celsius, throttling, battery."""
    parts = sections(text)
    values: dict[str, Any] = {}
    clocks = _numbers(parts.get("clocks", []))
    if clocks:
        values["clocks_mhz"] = [khz // 1000 for khz in clocks]
    thermal = parts.get("thermal", [])
    # Values repeat, cached ones before those from the hardware: the last one of a name counts.
    sensors = {
        (int(kind), name): float(degrees)
        for degrees, kind, name in re.findall(r"mValue=([-0-9.]+), mType=(\d+), mName=([^,}]+)", "\n".join(thermal))
    }
    hottest = [degrees for (kind, _), degrees in sensors.items() if kind == _CPU_SENSOR and 0 < degrees < 150]
    if not hottest:
        zones = (line.partition(" ") for line in parts.get("zones", []))
        hottest = [int(number) / 1000 for number, _, name in zones if "cpu" in name.lower() and number.isdigit()]
        hottest = [degrees for degrees in hottest if 1 < degrees < 150]
    if hottest:
        values["temperature_c"] = max(hottest)
    skin = [degrees for (kind, _), degrees in sensors.items() if kind == _SKIN_SENSOR and 0 < degrees < 150]
    if skin:
        values["skin_temperature_c"] = max(skin)
    status = next((line.split(":")[1].strip() for line in thermal if line.startswith("Thermal Status:")), "")
    if status.isdigit() and int(status) < len(_THERMAL_STATUS):
        values["throttling"] = _THERMAL_STATUS[int(status)]
    screen = "".join(parts.get("screen", [])).partition("=")[2]
    if screen:
        values["screen"] = screen.lower()  # a phone that dozes is slower
    battery = dict(line.split(": ", 1) for line in parts.get("battery", []) if ": " in line)
    level, tenths = _whole(battery.get("level", "")), _whole(battery.get("temperature", ""))
    if level is not None:
        values["battery_percent"] = level
        values["charging"] = any(battery.get(f"{source} powered") == "true" for source in ("AC", "USB", "Wireless"))
    if tenths is not None:
        values["battery_temperature_c"] = tenths / 10
    return values


def _numbers(lines: list[str]) -> list[int]:
    return [int(line) for line in lines if line.isdigit()]


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
