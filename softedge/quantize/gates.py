"""The gates of quality and size, for ``quantize`` and ``check`` (those after ``bench``: ``stages/gate.py``).

And the comparison with an earlier run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from softedge.config import Check
from softedge.export.nearest import SURE_DB
from softedge.records import Precision
from softedge.run import Run

_FEW = 200  # images: one of them is half of the default limit of a drop
COMPARED = ("top1", "agreement", "sqnr_db", "size_bytes")


def quality(measures: Mapping[str, Any], gates: Check, output: str) -> list[str]:
    """What the accuracy gates refuse, one line per reason: agreement, accuracy drop, direction of features."""
    why = []
    if "agreement" in measures and not measures["agreement"] >= gates.min_agreement:
        counted = _counted(1 - measures["agreement"], measures)
        why.append(f"agreement {measures['agreement']:.3f} is below {gates.min_agreement:g}{counted}")
    if "drop" in measures and not measures["drop"] <= gates.max_drop:
        counted = _counted(measures["drop"], measures)
        why.append(f"top-1 drop {measures['drop']:.3f} is above {gates.max_drop:g}{counted}")
    if output == "features" and not measures["distance"] <= 1 - gates.min_agreement:
        limit = 1 - gates.min_agreement
        why.append(f"cosine distance {measures['distance']:.3f} of the features is above {limit:.3g}")
    return why


def quality_on_test(measures: Mapping[str, Any], gates: Check, output: str) -> list[str]:
    """``quality`` of counted answers on test images; each line says what to do where they are few.

    Of fewer than ``_FEW`` images, one changed answer refuses no file with ``SURE_DB``: of 40 images, a file that keeps
    98 % of its answers changes one or more in 55 of 100 draws, two or more in 19.  A gate that allows no change at all
    is taken at its word.
    """
    n = measures.get("n", 0)
    advice = "; test on more images, or allow more with --min-agreement and --max-drop" if 0 < n < _FEW else ""
    if _spared(measures, gates):
        measures = {key: value for key, value in measures.items() if key not in ("agreement", "drop")}
    elif _one_of_few(measures, gates):  # noise alone is the reason
        noise = measures.get("sqnr_db")
        has = f"it has {noise:.1f} dB" if noise is not None else "that was not measured"
        advice = f"; one of so few is allowed from {SURE_DB:g} dB on, and {has}"
    return [f"{line[:-1]}{advice})" if line.endswith(" images)") else line for line in quality(measures, gates, output)]


def allowance(measures: Mapping[str, Any], gates: Check, output: str) -> str:
    """What the gates allowed a file that passes ``quality_on_test`` and not ``quality``; empty for others."""
    if not _spared(measures, gates) or not quality(measures, gates, output):
        return ""
    return f"1 of {measures['n']} answers changed, which is allowed of fewer than {_FEW} test images"


def _spared(measures: Mapping[str, Any], gates: Check) -> bool:
    """Whether one answer of few changed, with little noise, and the gates allow any change."""
    return _one_of_few(measures, gates) and measures.get("sqnr_db", 0.0) >= SURE_DB


def _one_of_few(measures: Mapping[str, Any], gates: Check) -> bool:
    n, agreement = measures.get("n", 0), measures.get("agreement", math.nan)
    changed = round((1 - agreement) * n) if math.isfinite(agreement) else n
    return changed == 1 < n < _FEW and gates.min_agreement < 1 and gates.max_drop > 0


def _counted(share: float, measures: Mapping[str, Any]) -> str:
    """The images behind a share, where they are so few that one of them decides."""
    n = measures.get("n", 0)
    return f" ({round(share * n)} of {n} images)" if 0 < n < _FEW and math.isfinite(share) else ""


def size(row: Mapping[str, Any], gates: Check) -> list[str]:
    """Why the size gate refuses an int8 file; fp32 and fp16 files are not what a size limit is about."""
    if gates.max_size and Precision.named(row["precision"]).is_int8 and row["size_bytes"] > gates.max_size:
        return [f"{row['size_bytes']} bytes are above the limit of {gates.max_size}"]
    return []


def against(rows: list[dict[str, Any]], earlier: Run) -> list[dict[str, Any]]:
    """What changed since an earlier run, per file: value now, value then and the difference of each measure.

    Raises UserError when the earlier run was not checked.
    """
    before = {row["artifact"]: row for row in earlier.need("check", "check").details["rows"]}
    changes = []
    for row in rows:
        then = before.get(row["artifact"], {})
        shared = [key for key in COMPARED if key in row and key in then]
        changes.append(
            {
                "artifact": row["artifact"],
                "run": earlier.name,
                "found": bool(then),
                **{key: {"now": row[key], "then": then[key], "change": row[key] - then[key]} for key in shared},
            }
        )
    return changes
