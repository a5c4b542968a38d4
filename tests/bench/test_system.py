from __future__ import annotations

import resource
from pathlib import Path

from softedge.bench.board import system


def test_clocks_and_the_hottest_sensor_are_read_from_sysfs(tmp_path: Path) -> None:
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000",
        "class/thermal/thermal_zone0/temp": "48312",
        "class/thermal/thermal_zone1/temp": "0",  # a sensor that is not connected
        "class/hwmon/hwmon0/temp1_input": "61000",
        "class/hwmon/hwmon1/temp1_input": "garbage",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert system.conditions(str(tmp_path)) == {"clocks_mhz": [1800, 600], "temperature_c": 61.0}


def test_what_a_system_does_not_tell_is_absent(tmp_path: Path) -> None:
    assert system.conditions(str(tmp_path)) == {}
    assert all(value not in (None, "", []) for value in system.describe().values())


def test_peak_memory_is_what_the_kernel_accounts() -> None:
    peak = system.peak_memory()
    assert peak is not None
    assert abs(peak - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) < 0.05 * peak
