"""Images that stages were done without: they could no longer be used, or were brought back since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softedge.report.stages import StageRecord

Values = dict[str, Any]


def collect(done: Mapping[str, StageRecord]) -> list[Values]:
    """{split, stages, n, of, names (the first), sha256 (of all names)}: one for the stages that lacked the same."""
    entries: dict[tuple[str, str], Values] = {}
    for name, stage in done.items():
        for result in stage.results.values():
            lost = result.details.get("set_aside")
            for split, one in lost.items() if isinstance(lost, dict) else ():
                if not isinstance(one, dict) or not {"n", "of", "names", "sha256"} <= one.keys():
                    continue
                entry = entries.setdefault((split, one["sha256"]), {"split": split, "stages": [], **one})
                entry["stages"] += [name] * (name not in entry["stages"])
    return list(entries.values())


def tested(run: Values) -> str:
    """What its stages measured on without, in words; "" for nothing.  run: of report.json."""
    return "; ".join(
        f"{', '.join(entry['stages'])}: {entry['n']:,} of {entry['of']:,} set aside ({', '.join(entry['names'])})"
        for entry in run.get("set_aside", [])
        if entry["split"] == "test"
    )
