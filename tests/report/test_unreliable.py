"""A run of which something is gone: the page and the card say it first, and recommend no file of it."""

from __future__ import annotations

import json
from pathlib import Path

import synthetic_run
from test_page import Page

from softedge.report import report, schema


def test_nothing_is_recommended_where_a_file_is_gone(tmp_path: Path) -> None:
    run = synthetic_run.make(tmp_path / "run", devices=("local", "ssh_pi_board"))
    gone = f"{run.root}/export/openvino-int8/model.xml does not exist"
    page = report([run], damaged=[[gone]]).read_text()
    said = "This report is not to be relied on: run/export/openvino-int8/model.xml does not exist."
    assert Page(page).all("p")[1]["text"] == said
    assert f"**{said}**" in (run.root / "MODEL_CARD.md").read_text()
    for name in ("report.html", "MODEL_CARD.md", "report.json"):
        text = (run.root / name).read_text()
        assert "Ship " not in text and str(tmp_path) not in text
    assert "ship this" not in page
    schema.Report.model_validate_json((run.root / "report.json").read_text())
    stored = json.loads((run.root / "report.json").read_text())["runs"][0]
    assert [(pick["status"], pick["artifact"]) for pick in stored["verdict"]["picks"]] == [("not to be relied on", "")]
    assert stored["damaged"] == ["run/export/openvino-int8/model.xml does not exist"]


def test_damage_of_a_run_that_stands_beside_is_said_at_the_top(tmp_path: Path) -> None:
    sound, damaged = (synthetic_run.make(tmp_path / name) for name in ("sound", "damaged"))
    page = Page(report([sound, damaged], damaged=[[], ["a", "b", "c"]]).read_text())
    answers = [e["text"] for e in page.all("p") if e["at"].get("class") == "answer"]
    assert answers[0].startswith("Ship OpenVINO int8")
    assert answers[1:] == ["damaged: This report is not to be relied on: a; b (and 1 more)."]
