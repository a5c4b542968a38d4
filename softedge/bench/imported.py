"""Results of other benchmark tools in the same table, marked "measured elsewhere".

Read are: OpenVINO's benchmark_app (its JSON or what it prints), onnxruntime_perf_test, LiteRT's benchmark_model, and
the numbers of Xcode's Core ML performance report, copied from its window as text.  Apple documents what that report
tells (median times of prediction, load and compilation, and the compute units), not how: neither a file format nor the
exact words.  What is read is an assumption, and every row from it says so.
Only what the tool gives becomes a number; it timed by its own rules, so no such row is ever stamped valid.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softedge.errors import UserError

Numbers = dict[str, float]
_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3}
_LARGEST_FILE = 10_000_000
_NUMBER, _UNIT = r"([0-9][0-9.,]*)", r"(µs|us|ms|s|%|[KMG]i?B)\b"
_TIME = rf"{_NUMBER}\s*(µs|us|ms|s)\b"
XCODE_CAVEAT = "Apple publishes no format of Xcode's report: compare these numbers with what its window shows"


@dataclass(frozen=True)
class Reading:
    """What a tool's output says: metrics by our names (milliseconds, counts, bytes), and what to know about them.

    model: the file name of what was measured, "" where nothing says.  unlike: how the measurement differs from one
    image at a time.
    """

    tool: str
    metrics: Numbers
    details: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    unlike: str = ""


def read(path: Path) -> Reading:
    """Recognise the tool by its words; UserError when none fits, and for what was not one image at a time."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the saved output of a benchmark tool")
    if path.stat().st_size > _LARGEST_FILE:
        raise UserError(f"{path} has {path.stat().st_size} bytes, too many for the output of a benchmark tool")
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as ">" of Windows' PowerShell writes
    text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    for reader in READERS:
        try:
            reading = reader(text)
        except (ValueError, OverflowError):  # a number that is none: "1.2.3", or one of thousands of digits
            continue
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if reading is None or not all(map(math.isfinite, reading.metrics.values())):
            continue
        if wrong := [f"{value:.3g}" for key, value in reading.metrics.items() if not _possible(key, value)]:
            raise UserError(f"{path}: {reading.tool} says {wrong[0]}, which is no latency or count; measure it again")
        if {"mean_ms", "p50_ms"} & reading.metrics.keys():
            if reading.unlike:
                raise UserError(
                    f"{path}: {reading.tool} measured {reading.unlike}, and the table is about one image at a time; "
                    "measure again with -b 1 -hint latency"
                )
            return reading
    raise UserError(
        f"{path} holds no latency that softedge can read; known: OpenVINO benchmark_app (JSON or text), "
        "onnxruntime_perf_test, LiteRT benchmark_model, Xcode's performance report copied as text"
    )


def _possible(name: str, value: float) -> bool:
    """A latency above zero and below a day, or a count that is not negative."""
    return 0 < value < 86_400_000 if name in ("mean_ms", "p50_ms", "p90_ms", "p99_ms") else 0 <= value < 1e15


def benchmark_app_json(text: str) -> Reading | None:
    """OpenVINO benchmark_app with -report_type no_counters -json_stats."""
    try:
        values = json.loads(text)
        results, options = values["execution_results"], values.get("cmd_options") or {}
        percentile = str(options.get("-latency_percentile", "50"))
        numbers = {key: float(results[key]) for key in results if re.fullmatch(r"[0-9.]+", str(results[key]))}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    names = {"avg latency": "mean_ms", "min latency": "min_ms", "first inference time (ms)": "first_ms"}
    if percentile in ("50", "90", "99"):
        names["latency (ms)"] = f"p{percentile}_ms"
    metrics: Numbers = {ours: numbers[theirs] for theirs, ours in names.items() if theirs in numbers}
    loading = [numbers[key] for key in ("read model time (ms)", "compile model time (ms)") if key in numbers]
    if loading:
        metrics["load_ms"] = sum(loading)
    if "total number of iterations" in numbers:
        metrics["n"] = int(numbers["total number of iterations"])
    setup = values.get("configuration_setup")
    setup = setup if isinstance(setup, dict) else {}
    unlike = _unlike(
        [str(options.get("-b", "")), str(setup.get("batch size", ""))],
        [str(options.get("-nireq", "")), str(setup.get("number of parallel infer requests", ""))],
        str(options.get("-hint", "")),
    )
    model = str(options.get("-m", options.get("--path_to_model", "")))
    return Reading("OpenVINO benchmark_app", metrics, {"options": options}, model, unlike)


def _unlike(batches: Sequence[str], requests: Sequence[str], hint: str) -> str:
    """What differs from one image at a time, "" where nothing does.  batches, requests: as they are written."""
    for texts, what in ((batches, "batches of {} images"), (requests, "{} requests at a time")):
        most = max((int(number) for text in texts for number in re.findall(r"[0-9]+", text)), default=1)
        if most > 1:
            return what.format(most)
    if re.fullmatch(r"(?i)(cumulative_)?throughput|c?tput", hint):
        return f"with the hint {hint.lower()}"
    return ""


def benchmark_app_text(text: str) -> Reading | None:
    """What OpenVINO benchmark_app prints."""
    if not re.search(r"\[Step 11/11\]|Dumping statistics report|Count:\s+[0-9]+ iterations", text):
        return None
    patterns = {
        "p50_ms": r"Median:\s+([0-9.]+) (us|ms)",
        "mean_ms": r"Average:\s+([0-9.]+) (us|ms)",
        "min_ms": r"Min:\s+([0-9.]+) (us|ms)",
        "first_ms": r"First inference took ([0-9.]+) (us|ms)",
        "load_ms": r"Compile model took ([0-9.]+) (us|ms)",
    }
    metrics = _times(text, patterns)
    reading = _times(text, {"load_ms": r"Read model took ([0-9.]+) (us|ms)"})
    if "load_ms" in metrics and reading:
        metrics["load_ms"] += reading["load_ms"]  # as in its JSON
    if iterations := re.search(r"Count:\s+([0-9]+) iterations", text):
        metrics["n"] = int(iterations[1])
    unlike = _unlike(
        re.findall(r"[Bb]atch size: ([0-9]+)", text),
        re.findall(r"Start inference asynchronously, ([0-9]+) inference requests", text),
        "".join(re.findall(r"PERFORMANCE_HINT: (?:PerformanceMode\.)?(\w+)", text)[:1]),
    )
    return Reading("OpenVINO benchmark_app", metrics, unlike=unlike)


def perf_test(text: str) -> Reading | None:
    """What onnxruntime_perf_test prints; it says "is" or a colon, "s" or "sec", depending on its version."""
    if not re.search(r"Average (inference )?time cost", text):
        return None
    value = r"(?: is|:)\s*([0-9.eE+-]+) (s|sec|ms)\b"
    patterns = {
        "mean_ms": r"Average (?:inference )?time cost(?: is|:)\s*([0-9.eE+-]+) (s|sec|ms)\b",
        "load_ms": r"Session creation time cost" + value,
        "first_ms": r"First inference time cost" + value,
        "min_ms": r"Min Latency" + value,
        "p50_ms": r"P50 Latency" + value,
        "p90_ms": r"P90 Latency" + value,
        "p99_ms": r"P99 Latency" + value,
    }
    metrics = _times(text, patterns)
    if match := re.search(r"Total (?:inference requests|iterations):\s*([0-9]+)", text):
        metrics["n"] = int(match[1])
    if match := re.search(r"Peak working set size:\s*([0-9]+) bytes", text):
        metrics["peak_memory_bytes"] = int(match[1])
    return Reading("onnxruntime_perf_test", metrics)


def benchmark_model(text: str) -> Reading | None:
    """What LiteRT's (TensorFlow Lite's) benchmark_model prints, microseconds throughout."""
    summary = re.search(r"nference timings in us: (.*)", text)
    if summary is None:
        return None
    # Until 2019 it said "Average inference timings in us: Warmup: ..., Init: ..., no stats: ...".
    patterns = {"load_ms": r"Init: ([0-9.e+]+)", "first_ms": r"First inference: ([0-9.e+]+)"}
    patterns["mean_ms"] = r"(?:Inference \(avg\)|no stats): ([0-9.e+]+)"
    matches = {name: re.search(pattern, summary[1]) for name, pattern in patterns.items()}
    metrics: Numbers = {name: float(match[1]) / 1000 for name, match in matches.items() if match}
    runs = re.findall(r"count=([0-9]+) .*?\bmin=([0-9.e+]+)(.*)", text)
    if runs:  # the last line of its kind is the measurement, earlier ones are warm-up
        count, least, rest = runs[-1]
        metrics |= {"n": int(count), "min_ms": float(least) / 1000}
        if match := re.search(r"\bmedian=([0-9.e+]+)", rest):
            metrics["p50_ms"] = float(match[1]) / 1000
    # Includes the tool itself, as it says. Newer ones report the growth since the start, which is not a peak.
    if match := re.search(r"Peak memory footprint \(MB\):.*\boverall=([0-9.]+)", text):
        metrics["peak_memory_bytes"] = round(float(match[1]) * 1024 * 1024)
    graph = re.search(r"\bGraph: \[(.+)\]", text)
    return Reading("LiteRT benchmark_model", metrics, model=graph[1] if graph else "")


def xcode(text: str) -> Reading | None:
    """Text copied from Xcode's Core ML performance report: median prediction, load and compilation times."""
    text = text.replace("\N{GREEK SMALL LETTER MU}s", "\N{MICRO SIGN}s")
    prediction = re.search(rf"Prediction\b[^0-9\n]*\n?\s*{_TIME}", text)
    if prediction is None:
        return None
    sign = _decimal_sign(text)
    metrics: Numbers = {"p50_ms": _decimal(prediction[1], sign) * _MS[prediction[2]]}
    if loading := re.search(rf"\bLoad\b[^0-9\n]*\n?\s*{_TIME}", text):
        metrics["load_ms"] = _decimal(loading[1], sign) * _MS[loading[2]]
    units = [unit for unit in ("Neural Engine", "GPU", "CPU") if unit in text]
    return Reading("Xcode performance report", metrics, {"compute_units_named": units, "caveat": XCODE_CAVEAT})


READERS: tuple[Callable[[str], Reading | None], ...] = (
    benchmark_app_json,
    benchmark_app_text,
    perf_test,
    benchmark_model,
    xcode,
)


def _times(text: str, patterns: Mapping[str, str]) -> Numbers:
    matches = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    return {name: float(match[1]) * _MS[match[2]] for name, match in matches.items() if match}


def _decimal_sign(text: str) -> str:
    """The decimal sign of a text in some language, "." or ",", by the numbers with a unit that leave no choice.

    "" where none does, or they contradict each other.
    """
    found = {sign for number, _ in re.findall(rf"{_NUMBER}\s*{_UNIT}", text) if (sign := _its_sign(number))}
    return found.pop() if len(found) == 1 else ""


def _its_sign(number: str) -> str:
    """The decimal sign that a number shows by itself; "" for "5", and for "1,234", which may be of two sizes."""
    signs = [letter for letter in number if letter in ".,"]
    if not signs:
        return ""
    if len(signs) > 1:  # of thousands, but the last one if it is another
        other = {".": ",", ",": "."}[signs[0]]
        return signs[-1] if signs[-1] != signs[0] else other
    before, after = re.split("[.,]", number)
    return "" if len(after) == 3 and re.fullmatch("[1-9][0-9]{0,2}", before) else signs[0]


def _decimal(number: str, sign: str) -> float:
    """A number as Xcode shows it.  sign: the decimal sign of the text, where other numbers tell it.

    UserError for "1,234" without such a sign: it may be 1234. A lone point is a decimal point unless a comma is.
    """
    sign = _its_sign(number) or sign or ("." if "," not in number else "")
    if not sign:
        plain, point = number.replace(",", ""), number.replace(",", ".")
        raise UserError(f"'{number}' may be {plain} or {point}; write {plain}, or {point} with a point")
    other = {".": ",", ",": "."}[sign]
    return float(number.replace(other, "").replace(sign, "."))
