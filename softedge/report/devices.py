"""What the devices of a benchmark are: names that people use, and how near each is to where the app will run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from softedge.report.stages import StageRecord
from softedge.report.words import is_number

Values = dict[str, Any]

# The nearest to an app first: what was measured on a phone or a board is worth more than what this computer says of it.
KINDS = ("a device", "this computer", "a browser on a computer", "elsewhere", "an emulator")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PHONES = re.compile(r"Android|iPhone|iPad|Mobile|Tablet", re.IGNORECASE)


def collected(bench: StageRecord) -> Values:
    """device -> ``address``, ``called``, ``short``, ``kind``, ``preset``, ``threads``, ``about``."""
    devices: Values = {}
    for name, result in bench.results.items():
        device = name.partition("@")[2]
        reported = result.details.get("device")
        about = reported if isinstance(reported, dict) else {}
        if device not in devices:
            address = str(result.recipe.get("device") or device)
            # Only what the device reported: the environment in the result is that of this machine.
            hardware = about.get("name") or about.get("model") or about.get("board") or about.get("cpu")
            elsewhere = bool(result.details.get("measured_elsewhere"))
            devices[device] = {
                "address": address,
                "called": f"{hardware} ({address})" if hardware and hardware != address else address,
                "short": _short(address, about),
                "kind": "elsewhere" if elsewhere else kind(address, about),
                "preset": str(result.recipe.get("preset") or ""),
                "about": about,
            }
        if is_number(result.details.get("threads")):
            devices[device]["threads"] = result.details["threads"]
    shorts = [device["short"] for device in devices.values()]
    for device in devices.values():
        if shorts.count(device["short"]) > 1:
            device["short"] = device["address"]
    return devices


def kind(address: str, about: Mapping[str, Any]) -> str:
    """One of ``KINDS``.  A board behind a loopback address is this computer, and so is the browser that runs on it."""
    scheme, _, rest = address.partition(":")
    if about.get("emulated") or scheme == "emulated":
        return "an emulator"
    if about.get("kind") in KINDS:  # the device itself says so; bench of earlier versions did not record it
        return str(about["kind"])
    if scheme == "local":
        return "this computer"
    if scheme == "ssh":
        return "this computer" if _host(rest) in _LOOPBACK else "a device"
    if scheme == "browser":
        phone = about.get("model") or _PHONES.search(str(about.get("user_agent", "")))
        return "a device" if phone else "a browser on a computer"
    return "a device"


def _host(rest: str) -> str:
    return urlsplit(rest if rest.startswith("//") else f"//{rest}").hostname or ""


def _short(address: str, about: Mapping[str, Any]) -> str:
    """A few letters for the head of a column."""
    scheme, _, rest = address.partition(":")
    if scheme == "ssh":
        query = urlsplit(rest).query
        return f"ssh {_host(rest)}" + (f" {query}" if query else "")
    if scheme == "adb":
        return str(about.get("model") or "") or f"adb {rest.removeprefix('//')}".strip()
    if scheme == "browser":
        model = str(about.get("model") or "")
        return f"browser, {model}" if model else address
    return address
