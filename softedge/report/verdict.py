"""Which file to ship to which device, and why: a pure function of the numbers in the files table.

The rule: of the files that passed the gate, in the check and with what the device answered, and have valid latencies
there, the one with the lowest p90. Files whose p90 is not measurably different count as equally fast; of those the
smallest wins; of files that are hardly smaller than another the one whose answers are nearer to fp32's, by noise, since
a changed answer of few is chance. Where few test images passed a file that the int8 search was not sure of, the
file that it was sure of stands in for it, or the answer says what it rests on (``certainty``). A gate that failed, or a
measurement that does not exist, is reported, never hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from softedge.export.refused import grouped, reasons
from softedge.records import disturbance
from softedge.report import certainty, computed, headline, words

Row = Mapping[str, Any]

# Without a confidence interval of the paired ratio, p90s this close count as equal (run-to-run noise, an assumption).
SAME_SPEED = 1.05

MOST_REASONS = 3  # of failed files, in a sentence

_SMALLER = 0.98  # of the size of the file to ship: one that is hardly smaller is no alternative


@dataclass(frozen=True)
class Pick:
    """The answer for one device. ``device`` is empty when nothing was timed; status: one of ``schema.Pick``."""

    device: str
    status: str
    artifact: str
    answer: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """picks: one per device, the first one is the headline.  cautions: what to know before acting.

    why_first: why the headline is about that device; empty when there is one alone.
    """

    picks: tuple[Pick, ...]
    cautions: tuple[str, ...] = field(default_factory=tuple)
    why_first: str = ""

    @property
    def headline(self) -> Pick:
        return self.picks[0]

    def to_dict(self) -> dict[str, Any]:
        picks = [pick.to_dict() for pick in self.picks]
        return {"picks": picks, "cautions": list(self.cautions), "why_first": self.why_first}


def decide(
    files: Sequence[Row],
    devices: Mapping[str, str],
    cautions: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict over a files table (see schema.md, ``files``); devices: name -> how to call it in a sentence.

    kinds: name -> what it is (``devices.KINDS``), for the choice of the headline (``headline.order``).
    """
    timed = [device for device in devices if any(_p90(row, device) is not None for row in files)]
    if not timed or not any(row["gate"] == "passed" for row in files):
        return Verdict((_without_latency(files),), tuple(cautions))
    order, why_first = headline.order(files, {device: devices[device] for device in timed}, kinds or {})
    picks = [_for_device(files, device, devices[device]) for device in order]
    return Verdict(tuple(picks), tuple(cautions), why_first)


def _for_device(files: Sequence[Row], device: str, called: str) -> Pick:
    timed = [row for row in files if row["gate"] == "passed" and _p90(row, device) is not None]
    runnable = [row for row in timed if _sound(row, device)]
    if not runnable:
        ran = [words.artifact_name(row["artifact"]) for row in files if _p90(row, device) is not None]
        return Pick(
            device,
            "nothing passed",
            "",
            f"Ship nothing to {called} yet: no file that ran there passed its gate.",
            f"{words.listing(ran)} ran there; {_changed(timed, device) or _gate_summary(files)}.",
        )
    valid = [row for row in runnable if row["devices"][device].get("valid", True)]
    aside = certainty.left_aside(valid or runnable)
    pool = [row for row in valid or runnable if row not in aside]
    fastest = min(pool, key=lambda row: _p90(row, device) or math.inf)
    equals = [row for row in pool if _as_fast(row, fastest, device)]
    best = _smallest(equals, device)
    why = _why(best, fastest, pool, aside, files, device)
    if not valid:
        reason = best["devices"][device].get("why_not_valid") or "too few samples"
        why = f"With care: the latencies are not valid ({reason}). {why}"
    return Pick(device, "ship", best["artifact"], f"Ship {_name(best)} to {called}: {_merits(best, device)}.", why)


def _smallest(rows: Sequence[Row], device: str) -> Row:
    """Of files that are hardly larger than the smallest, the nearest to fp32, then the smallest."""
    limit = min(_bytes(row) for row in rows) / _SMALLER
    near = [row for row in rows if _bytes(row) <= limit]
    return min(near, key=lambda row: (-(row.get("sqnr_db") or 0.0), _bytes(row), -_top1(row, device)))


def _bytes(row: Row) -> float:
    return row.get("size_bytes") or math.inf


def _merits(row: Row, device: str) -> str:
    """Accuracy, p90, size, gate."""
    accuracy = computed.accuracy(row, row["devices"].get(device) or {})
    parts = [accuracy] if accuracy else []
    p90 = _p90(row, device)
    if p90 is not None:
        noise = " (disturbed by other work)" if disturbance(row["devices"][device].get("p50_ms"), p90) else ""
        parts.append(f"p90 latency {words.milliseconds(p90)}{noise}")
    if row.get("size_bytes"):
        parts.append(words.size(row["size_bytes"]))
    parts += ["gate passed", *filter(None, [certainty.rests_on(row)])]
    return ", ".join(parts)


def _why(best: Row, fastest: Row, pool: Sequence[Row], aside: Sequence[Row], files: Sequence[Row], device: str) -> str:
    """aside: left out of ``pool`` (``certainty.left_aside``)."""
    others = [row for row in pool if row is not best]
    equals = [row for row in others if _as_fast(row, fastest, device)]
    if not others:
        first = f"It is the only file{_besides(aside)} that passed and was timed there"
    elif best is not fastest:
        first = (
            f"{_name(fastest)} is not measurably faster than {_name(best)}, "
            f"the smallest of these ({words.size(best['size_bytes'])}){_hardly(best, equals)}"
        )
    elif equals:
        names = words.listing([_name(row) for row in equals])
        verb = "is" if len(equals) == 1 else "are"
        first = f"{_name(best)} is the smallest of the fastest{_hardly(best, equals)}: "
        first += f"{names} {verb} not measurably slower or faster"
        first += _price(best, others, equals, device, _name(best))
    else:
        # Only an interval of the paired ratio calls two files different; without one a lower p90 is just that.
        sure = all(_compared(row, fastest, device) for row in others)
        what = "is the fastest" if sure else "has the lowest p90"
        first = f"It {what} of the {len(pool)} files{_besides(aside)} that passed and were timed there"
        if not sure:
            first += ", with too few paired rounds to exclude noise"
        first += _price(best, others, [], device)
    changed = [row for row in files if row["gate"] == "passed" and not _sound(row, device)]
    remarks = ", ".join(filter(None, [_remarks(files, device), _changed(changed, device)]))
    return "; ".join(filter(None, [first, certainty.why_left_aside(aside), remarks])) + "."


def _hardly(best: Row, equals: Sequence[Row]) -> str:
    """A clause, where one of the others is smaller by a little (``_smallest``); else ""."""
    least = min((_bytes(row) for row in equals), default=math.inf)
    if least >= _bytes(best):
        return ""
    return f", to within {words.percent(1 - least / _bytes(best))}, and of those the nearest to fp32"


def _besides(aside: Sequence[Row]) -> str:
    return f" besides {words.listing([_name(row) for row in aside])}" if aside else ""


def _price(best: Row, others: Sequence[Row], equals: Sequence[Row], device: str, subject: str = "") -> str:
    """What is gained over fp32 of the same target, and what a smaller file would cost.

    subject: what is said to be faster, where a sentence is about something else.
    """
    text = ""
    reference = next((r for r in others if r["target"] == best["target"] and r["precision"] == "fp32"), None)
    if reference is not None and best["precision"] != "fp32" and reference not in equals:
        text += f"; {subject} is " if subject else ", "
        text += f"{words.times(_times_as_long(reference, best, device))} as fast as {_name(reference)}"
        text += _by(reference, best, device)
    limit = _SMALLER * (best.get("size_bytes") or 0)
    smaller = [row for row in others if _bytes(row) < limit]
    if smaller:
        small = min(smaller, key=lambda row: row["size_bytes"])
        slower = _times_as_long(small, best, device)
        size = words.size(small["size_bytes"])
        text += f"; {_name(small)} is smaller ({size}) but takes {words.times(slower)} as long"
        text += _by(small, best, device)
    return text


def _remarks(files: Sequence[Row], device: str) -> str:
    """What did not make it, in a few words."""
    failed = [_name(row) for row in files if row["gate"] == "failed"]
    empty = [row for row in files if "export" in row.get("not_run", {})]
    aside = [row for row in empty if row.get("set_aside")]
    untried = [_name(row) for row in empty if row not in aside and row["not_run"]["export"] == words.NOT_TRIED]
    unmade = [_name(row) for row in empty if row not in aside and row["not_run"]["export"] != words.NOT_TRIED]
    unchecked = sum(row["gate"] == "not run" for row in files) - len(empty)
    untimed = [_name(row) for row in files if row["gate"] == "passed" and _p90(row, device) is None]
    remarks = []
    if failed:
        remarks.append(f"{words.listing(failed)} failed the gate")
    if untimed:
        remarks.append(
            f"{words.listing(untimed) if len(untimed) < 4 else f'{len(untimed)} others'} passed but could not be timed"
        )
    if unmade:
        remarks.append(f"{words.listing(unmade)} could not be exported")
    if untried:
        remarks.append(f"{words.listing(untried)} {'was' if len(untried) == 1 else 'were'} not exported")
    if aside:
        names = words.listing([_name(row) for row in aside])
        again = ", then: ".join(row["set_aside"] for row in aside)
        verb = "was" if len(aside) == 1 else "were"
        remarks.append(f"{names} {verb} set aside when the network changed (export again with: {again})")
    if unchecked:
        remarks.append(f"{words.plural(unchecked, 'file was', 'files were')} not checked")
    return ", ".join(remarks)


def _without_latency(files: Sequence[Row]) -> Pick:
    """The answer when no file both passed and was timed."""
    exported = [row for row in files if row.get("size_bytes")]
    passed = [row for row in exported if row["gate"] == "passed"]
    if passed:
        aside = certainty.left_aside(passed)
        left = [row for row in passed if row not in aside]
        best = min(left, key=lambda row: (row["size_bytes"], -(row.get("top1") or 0.0)))
        first = f"It is the smallest of {words.plural(len(left), 'file')}{_besides(aside)} that passed"
        untimed = "nothing was timed on a device, so nothing is known about its speed."
        return Pick(
            "",
            "ship, not timed",
            best["artifact"],
            f"Ship {_name(best)} (latency not measured): {_merits(best, '')}.",
            "; ".join(filter(None, [first, certainty.why_left_aside(aside), untimed])),
        )
    if any(row["gate"] == "failed" for row in exported):
        why = _gate_summary(files)
        why = f"{why[0].upper()}{why[1:]}."
        return Pick("", "nothing passed", "", "Ship nothing yet: no file passed the gate.", why)
    if exported:
        return Pick(
            "",
            "not checked",
            "",
            "Ship nothing yet: no file was checked against PyTorch.",
            f"{words.plural(len(exported), 'file')} exported; 'softedge check' compares them with PyTorch.",
        )
    return Pick(
        "",
        "nothing exported",
        "",
        "There is no file to ship yet: nothing was exported.",
        "'softedge export' makes the files, 'softedge check' and 'softedge bench' say which of them to ship.",
    )


def _gate_summary(files: Sequence[Row]) -> str:
    """Files that failed, those with the same reason together; the reasons of most files first."""
    failed = [row for row in files if row["gate"] == "failed"]
    found = [(_name(row), reason) for row in failed for reason in reasons(row.get("why") or "")]
    groups = sorted(grouped(found), key=lambda group: -len(group[0]))
    parts = [
        f"{_named(names, len(failed))} failed ({reason})" if reason else f"{_named(names, len(failed))} failed"
        for names, reason in groups[:MOST_REASONS]
    ]
    named = {name for names, _ in groups[:MOST_REASONS] for name in names}
    if len(failed) > len(named):
        parts.append(f"{len(failed) - len(named)} more failed")
    unchecked = [row for row in files if row["gate"] == "not run"]
    if unchecked:
        parts.append(f"{words.plural(len(unchecked), 'file was', 'files were')} not checked")
    return "; ".join(parts) or "no gate was run"


def _named(names: list[str], failed: int) -> str:
    return f"all {failed}" if len(names) == failed > MOST_REASONS else words.listing(names)


def _times_as_long(row: Row, than: Row, device: str) -> float:
    """How much longer a file takes: the paired ratio where it was measured (what slows both cancels), else p90s."""
    pair = (row["devices"][device].get("ratios") or {}).get(than["artifact"])
    return pair["ratio"] if pair else (_p90(row, device) or 0.0) / (_p90(than, device) or math.inf)


def _by(row: Row, than: Row, device: str) -> str:
    """Of what the ratio is: the p90s that stand beside it have another where other work disturbed them."""
    paired = than["artifact"] in (row["devices"][device].get("ratios") or {})
    return " in paired rounds" if paired else " by p90"


def _as_fast(row: Row, fastest: Row, device: str) -> bool:
    if row is fastest:
        return True
    pair = (row["devices"][device].get("ratios") or {}).get(fastest["artifact"])
    if pair and pair.get("different") is not None:
        return not pair["different"] or pair["ratio"] < 1.0
    return (_p90(row, device) or math.inf) <= SAME_SPEED * (_p90(fastest, device) or 0.0)


def _compared(row: Row, fastest: Row, device: str) -> bool:
    """Whether the two were measured side by side for long enough to have an interval of their ratio."""
    pair = (row["devices"][device].get("ratios") or {}).get(fastest["artifact"])
    return pair is not None and pair.get("different") is not None


def _sound(row: Row, device: str) -> bool:
    """Whether the file answers on the device as it did in the check; integer kernels saturate, floats lose bits."""
    return not computed.refused(row, row["devices"].get(device) or {})


def _changed(rows: Sequence[Row], device: str) -> str:
    changed = [row for row in rows if not _sound(row, device)]
    if not changed:
        return ""
    names = words.listing([_name(row) for row in changed])
    how = [computed.refused(row, row["devices"][device]) for row in changed]
    why = how[0] if len(how) == 1 else "; ".join(f"{_name(row)} {line}" for row, line in zip(changed, how))
    return f"{names} passed the gate but {'gives' if len(changed) == 1 else 'give'} different answers there ({why})"


def _top1(row: Row, device: str) -> float:
    return computed.top1(row, row["devices"].get(device) or {}) or 0.0


def _p90(row: Row, device: str) -> float | None:
    timing = row["devices"].get(device) or {}
    p90: float | None = timing.get("p90_ms")
    return p90


def _name(row: Row) -> str:
    return words.artifact_name(row["artifact"])
