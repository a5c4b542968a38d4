"""Labels that look wrong, with their pictures."""

from __future__ import annotations

from typing import Any

from softedge.report import stages
from softedge.report.pictures import png
from softedge.run import Run, sha256

_INDEX = "data/index.json"

Values = dict[str, Any]


def issues(run: Run) -> Values:
    """``n_issues``, ``n_labelled``, ``cv_top1``, ``features``, ``issues``, ``confused``; {} where nobody looked.

    outdated: the images or their labels have changed since.
    """
    result = stages.read(run, "label_issues").result
    if result is None or not isinstance(result.details.get("issues"), list):
        return {}
    index = run.root / _INDEX
    now = sha256(index) if index.is_file() else "absent"
    kept: Values = {key: result.details[key] for key in ("features", "issues", "confused") if key in result.details}
    return {**result.metrics, **kept, "outdated": result.inputs.get(_INDEX) != now}


def pictures(run: Run, values: Values) -> dict[str, str]:
    """ "issue:RANK" -> data URI of the pictures that the stage put aside; those that are gone are left out."""
    from softedge.data.decoding import BadImage, decode

    uris = {}
    for issue in values.get("issues", []):
        try:
            path = run.folder("label_issues") / "pictures" / f"{int(issue['rank'])}.png"
            uris[f"issue:{issue['rank']}"] = png(decode(path))
        except (BadImage, KeyError, TypeError, ValueError):
            continue
    return uris
