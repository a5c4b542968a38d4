"""Collects the runs, decides, draws, and writes the three files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softedge.errors import UserError
from softedge.progress import without_controls
from softedge.report import cautions, image_map, labelling, near_copies, phrases, unreliable, usefulness, verdict
from softedge.report.card import card
from softedge.report.changes import changes, images_tested
from softedge.report.collect import collect
from softedge.report.page import render
from softedge.report.pictures import of_check, of_test_images
from softedge.run import Run, read_json, write_json, write_text

SCHEMA = 1

Values = dict[str, Any]


def report(runs: Sequence[Run], force: bool = True, damaged: Sequence[Sequence[str]] = ()) -> Path:
    """Write report.html, report.json and MODEL_CARD.md into the first run's folder; returns the path of the page.

    runs: the first one gives the verdict; the others stand beside it. Stages may be missing, unfinished or damaged: the
    page then says "not run" and why.  force: write even when there is a report already (False: leave it).
    damaged: of each run, what is no longer as its stage left it; of such a run nothing is recommended.
    """
    if not runs:
        raise UserError("softedge report needs at least one run folder, for example: softedge report runs/demo")
    for run in runs:
        if not run.root.is_dir():
            raise UserError(f"{run.root} is not a folder; give the folder of a run, for example runs/demo")
    page = runs[0].root / "report.html"
    if page.exists() and not force:
        return page
    values = gather(runs, damaged)
    pictures: dict[tuple[int, str], str] = {}
    for number, (run, collected) in enumerate(zip(runs, values["runs"])):
        pictures |= {(number, key): uri for key, uri in _pictures(run, collected).items()}
    write_json(runs[0].root / "report.json", values)
    write_text(runs[0].root / "MODEL_CARD.md", without_controls(card(values["runs"][0])))
    write_text(page, without_controls(render(values, pictures)))
    return page


def gather(runs: Sequence[Run], damaged: Sequence[Sequence[str]] = ()) -> Values:
    """The values of report.json; damaged: as ``report``."""
    from softedge import __version__

    known = _earlier(runs[0])
    collected = []
    for run, lines in zip(runs, damaged or [()] * len(runs)):
        one = collect(run, known.get(run.name))
        called = {name: device["called"] for name, device in one["devices"].items()}
        kinds = {name: device["kind"] for name, device in one["devices"].items()}
        decided = usefulness.judged(verdict.decide(one["files"], called, kinds=kinds), one)
        first = [pick.device for pick in decided.picks if pick.device]
        one["devices"] = {name: one["devices"][name] for name in dict.fromkeys([*first, *one["devices"]])}
        damage = unreliable.named(run, lines)
        decided = unreliable.withheld(decided, run, damage)
        one |= {"damaged": damage} if damage else {}
        warnings = cautions.cautions_of(one, decided.headline.artifact)
        one = {"name": one["name"], "verdict": {**decided.to_dict(), "cautions": warnings}, **one}
        for stage in one["stages"]:
            stage["summary"] = phrases.stage_summary(one, stage)
            stage["failed"] = phrases.stage_failed(one, stage)
        collected.append(one)
    values: Values = {
        "schema": SCHEMA,
        "softedge": __version__,
        "generated": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "runs": collected,
    }
    if len(collected) == 2:
        values["changes"] = changes(collected[0], collected[1], *map(images_tested, runs))
    return values


def _earlier(run: Run) -> Values:
    """name -> values of the runs in an earlier report, for what is slow to compute and has not changed."""
    try:
        runs = read_json(run.root / "report.json")["runs"]
        return {entry["name"]: entry for entry in runs}
    except (UserError, KeyError, TypeError):
        return {}


def _pictures(run: Run, collected: Values) -> dict[str, str]:
    """Data URIs for the gallery, the examples and the labels that look wrong.

    Why those of the gallery cannot be read is said in ``pictures_missing``.
    """
    uris, names, trouble = of_test_images(run, [entry["index"] for entry in collected.get("gallery", [])])
    if trouble:
        collected["pictures_missing"] = trouble
    for entry in collected.get("gallery", []):
        if entry["index"] in names:
            entry["name"] = names[entry["index"]]
    pictures = {f"test:{index}": uri for index, uri in uris.items()} | labelling.pictures(
        run, collected["label_issues"]
    )
    if pairs := collected.get("near_copies", {}).get("pairs"):
        pictures |= {f"near:{name}": uri for name, uri in near_copies.pictures(run, pairs).items()}
    if "map" in collected and (sheet := image_map.sheet(run)):
        pictures["map"] = sheet
    return pictures | {f"check:{index}": uri for index, uri in of_check(run, collected["examples"]).items()}
