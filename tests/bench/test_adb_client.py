from __future__ import annotations

import hashlib
import importlib.util
import io
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from softedge.bench import pinned
from softedge.bench.android import adb as adb_client
from softedge.bench.android import bundle as android_bundle
from softedge.bench.android import facts as android_facts
from softedge.bench.base import DeviceError, open_device
from softedge.errors import UserError

# What a Pixel-like phone answers; the formats are those of Android 14's getprop, dumpsys thermalservice and battery.
ANSWER = """== properties
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
== cpuinfo
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp i8mm bf16
processor\t: 1
Features\t: fp asimd fphp asimdhp asimddp i8mm bf16
== memory
MemTotal:        7771032 kB
== kernel
5.15.110-android14
== highest
1704000
2914000
== governor
sched_pixel
sched_pixel
== clocks
324000
500000
== zones
41000 cpu-big
0 unused
== thermal
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=80.0, mType=0, mName=CPU0, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=45.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=47.25, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=33.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
== battery
  AC powered: false
  USB powered: true
  level: 81
  temperature: 287
== screen
  mWakefulness=Dozing
"""


def test_a_phone_is_described_by_what_it_tells() -> None:
    facts = android_facts.describe(ANSWER)
    assert facts == {
        "cpu": "Google Tensor G3",
        "model": "Google Pixel 8",
        "os": "Android 14",
        "api_level": 34,
        "machine": "arm64-v8a",
        "kernel": "5.15.110-android14",
        "isa": ["asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16"],
        "cores": 2,
        "memory_bytes": 7771032 * 1024,
        "highest_clocks_mhz": [1704, 2914],
        "governor": "sched_pixel",
        "clocks_mhz": [324, 500],
        "temperature_c": 47.25,
        "skin_temperature_c": 33.0,
        "throttling": "light",
        "battery_percent": 81,
        "charging": True,
        "battery_temperature_c": 28.7,
        "screen": "dozing",
    }


def test_what_a_phone_does_not_tell_is_absent() -> None:
    assert android_facts.describe("== properties\n== clocks\ncat: Permission denied\n") == {}


def test_thermal_zones_stand_in_where_the_thermal_service_is_silent() -> None:
    assert android_facts.conditions("== zones\n38500 cpu-1-0-usr\n61000 cpu-1-1-usr\n99000 modem\n") == {
        "temperature_c": 61.0
    }


def fake_adb(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    """An adb that only knows ``devices``."""
    program = folder / "adb"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = devices ] && printf 'List of devices attached\\n{listed}\\n'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("spec", "listed", "words"),
    [
        ("adb:", "", "adb sees no phone; plug one in"),
        ("adb:", r"AAA\tdevice\nBBB\tdevice", r"adb sees these: AAA, BBB; name one: adb://SERIAL"),
        ("adb://CCC", r"AAA\tdevice", "adb sees no device CCC; it sees: AAA"),
        ("adb:", r"AAA\tunauthorized", "accept 'Allow USB debugging'"),
        ("adb://AAA", r"AAA\toffline", "the phone is offline: unplug and plug the cable"),
        ("adb:", r"AAA\tno permissions (user not in plugdev group)", "udev rules"),
        ("adb:", r"AAA\trecovery", "recovery mode"),
    ],
)
def test_a_phone_that_is_not_ready_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, listed: str, words: str
) -> None:
    fake_adb(tmp_path, monkeypatch, listed)
    with pytest.raises(DeviceError, match=words) as caught, open_device(spec):
        pass
    assert "\n" not in str(caught.value)


def test_a_missing_adb_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    with pytest.raises(DeviceError, match="apt-get install adb"), open_device("adb:"):
        pass


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("adb: error: failed to copy 'x' to '/y': remote couldn't write: No space left on device", "storage is full"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "Allow USB debugging"),
        ("error: device '1234' not found", "disconnected half way"),
        ("error: closed", "disconnected half way"),
        ("adb: error: failed to copy 'm' to '/d': couldn't read from device", "disconnected half way"),
        ("sh: something odd\n", "adb says: sh: something odd"),
        ("", "without a word"),
    ],
)
def test_what_adb_says_becomes_one_line(said: str, words: str) -> None:
    assert words in adb_client.explain(said) and "\n" not in adb_client.explain(said)


def debian_package(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """A .deb as dpkg-deb makes it: an ar archive with an odd-sized member before data.tar.xz."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += header + content + b"\n" * (len(content) % 2)
    return package


def test_libraries_and_licences_come_out_of_a_debian_package(tmp_path: Path) -> None:
    package = debian_package(
        {"./usr/lib/libstdc++.so.6.0.30": b"library", "./usr/share/doc/libx/copyright": b"GPL", "./usr/evil": b"x"},
        {"./usr/lib/libstdc++.so.6": "libstdc++.so.6.0.30", "./usr/share/doc/liby": "elsewhere"},
    )
    android_bundle._unpack(package, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "libstdc++.so.6": b"library",
        "LICENCE-libx.txt": b"GPL",
    }


def test_versions_of_glibc_compare_as_numbers() -> None:
    assert android_bundle.newest_glibc(b"..GLIBC_2.9\0GLIBC_2.17\0GLIBC_2.4\0GLIBCXX_3.4..") == (2, 17)
    assert android_bundle.newest_glibc(b"no versions") == (0, 0)


def test_a_missing_compiler_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTEDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'softedge\[android\]'"):
        android_bundle.bundle()
    assert not list(tmp_path.iterdir())


def test_a_download_is_taken_from_the_first_address_with_the_right_bytes(tmp_path: Path) -> None:
    for name in ("damaged", "good"):
        (tmp_path / name).write_bytes(name.encode())
    pin = f"sha256:{hashlib.sha256(b'good').hexdigest()}"
    urls = [(tmp_path / name).as_uri() for name in ("absent", "damaged", "good")]
    assert pinned.download(urls, pin, "a file") == b"good"
    with pytest.raises(UserError, match="a file could not be fetched .*expected hash"):
        pinned.download(urls[:2], pin, "a file")
