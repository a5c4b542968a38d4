"""Numbers and names as people read them. Every shown value goes through here: rounding is one decision."""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Mapping
from typing import Any

from softedge import progress, registry
from softedge.errors import UserError
from softedge.records import Precision

NARROW = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "\u2212"
NOT_TRIED = "not among the exported files"  # why there is no file: no command has been asked for it
_NETWORKS = {
    "finetune": "fine-tuned network",
    "distill": "taught network",
    "scratch": "network trained on the labels alone",
}


def artifact_name(artifact: str) -> str:
    """``onnx-int8`` -> ``ONNX int8``; a format that is not installed here keeps the name it is typed by."""
    target, _, precision = artifact.partition("-")
    return f"{format_title(target)} {precision}".strip()


@functools.cache
def format_title(name: str) -> str:
    """The format as people write it."""
    try:
        return str(registry.lookup(registry.FORMATS, name, "format").title)
    except UserError:
        return name


def given(run: dict[str, Any]) -> bool:
    """Whether the network was trained elsewhere: the run was given its weights and trains nothing."""
    return bool(run["recipe"].get("export", {}).get("source") == "given")


def is_int8(precision: str) -> bool:
    """Whether a file of this precision is stored in 8 bits; a name that says nothing is not."""
    try:
        return Precision.named(precision).is_int8
    except ValueError:
        return False


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage: 0.9623 -> ``96.2 %``."""
    return f"{value * 100:.{digits}f}{NARROW}%"


def points(value: float, digits: int = 1) -> str:
    """A difference of fractions in percentage points, with its sign: -0.0031 -> ``-0.3``; zero has none."""
    text = f"{abs(value) * 100:.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def tick(value: float) -> str:
    """A number on an axis: as short as it can be."""
    return f"{value:g}".replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent: 0.03712 -> ``0.0371``, 12.04 -> ``12.0``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS)


def milliseconds(value: float) -> str:
    return f"{significant(value)}{NARROW}ms"


def size(value: float) -> str:
    """Bytes in decimal units, as app stores count: 1_140_000 -> ``1.14 MB``, 780_000 -> ``0.78 MB``."""
    # Half a megabyte is easier to compare with two than 500 kilobytes are: MB begins early.
    for unit, scale, digits, begins in (("GB", 1e9, 2, 1e9), ("MB", 1e6, 2, 5e4), ("kB", 1e3, 0, 1e3)):
        if value >= begins:
            shown = 0 if value >= 100 * scale else min(1, digits) if value >= 10 * scale else digits
            return f"{value / scale:.{shown}f}{NARROW}{unit}"
    return f"{int(value)}{NARROW}bytes"


def times(value: float) -> str:
    """A ratio: 1.934 -> ``1.9 ×``."""
    return f"{significant(value, 2)}{NARROW}×"


def count(value: float) -> str:
    """A whole number with narrow spaces between thousands."""
    return f"{round(value):,}".replace(",", NARROW)


def decibels(value: float) -> str:
    return f"{value:.1f}{NARROW}dB".replace("-", MINUS)


def exponent(value: float) -> str:
    """A tiny difference: 2.3e-06 -> ``2.3·10⁻⁶``; ordinary numbers stay ordinary."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return significant(value, 2)
    mantissa, power = f"{value:.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{raised}"


def duration(seconds: float) -> str:
    """Seconds as a person says it: 151.2 -> ``2 min 31 s``."""
    if seconds < 10:
        return f"{significant(seconds, 2)}{NARROW}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NARROW}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NARROW}h {minutes}{NARROW}min"


def moment(text: str) -> str:
    """An ISO time as ``20 November 2026, 16:07 UTC``; anything else as it is."""
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is not None:
        when = when.astimezone(datetime.UTC)
    return f"{when.day} {when:%B %Y, %H:%M}" + (" UTC" if when.tzinfo is not None else "")


def listing(items: list[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def plural(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``3 files``."""
    return progress.plural(number, one, many, count)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def layer_name(layer: Mapping[str, Any]) -> str:
    """What a layer of the int8 search is called: its weight's name in the network, else the node's in the file."""
    weight = str(layer.get("weight") or "").removesuffix(".weight").removeprefix("model.").removeprefix("backbone.net.")
    return weight or str(layer.get("name", ""))


def classifier_called(stage: str | None) -> str:
    """Whose answers are shown, by the stage that trained it."""
    if not stage or stage == "probe":
        return "linear classifier on the pretrained features"
    return f"{_NETWORKS.get(stage, stage)} that is exported"


def pretrained(run: Mapping[str, Any]) -> bool:
    """Whether the run trained without labels, and did not keep the weights it started from, or was given others."""
    if run.get("recipe", {}).get("export", {}).get("source") == "given":
        return False
    return run["pretrain"].get("metrics", {}).get("epochs") != 0 and run["pretrain"].get("kept") != "start"
