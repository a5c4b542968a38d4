"""Labels that look wrong, in the report: with the pictures that were put aside, and never stale in silence."""

from __future__ import annotations

import json

import pytest
import synthetic_run
from test_page import Page

from softedge.report import report
from softedge.run import Run, sha256, write_json


@pytest.fixture
def run(tmp_path) -> Run:
    return synthetic_run.make(tmp_path / "run", extras=True)


def section(run: Run) -> list[dict]:
    return Page(report([run]).read_text()).elements


def test_every_image_is_named_with_its_label_and_what_it_looks_like(run):
    elements = section(run)
    heading = next(i for i, e in enumerate(elements) if e["tag"] == "h2" and e["text"] == "Labels that look wrong")
    text = "".join(e["text"] for e in elements[heading : heading + 60])
    assert "31 of 1\u202f177 labels" in text and "the 2 worst are shown" in text and "looks like 8" in text
    shown = [e["at"] for e in elements if e["tag"] == "img" and e["at"].get("alt") == "<i>1</i>.png"]
    assert len(shown) == 1 and shown[0]["src"].startswith("data:image/png")
    assert any(e["tag"] == "a" and e["at"].get("href") == "#labels" for e in elements)


def test_test_images_among_the_doubtful_ones_are_counted_and_marked(run):
    elements = section(run)
    said = [e["text"] for e in elements if e["text"].startswith("6 of them are test images. Correct test labels only")]
    assert len(said) == 1 and sum(e["text"] == "test image" and e["tag"] == "span" for e in elements) == 1


def test_a_picture_that_is_gone_leaves_the_rest(run):
    (run.folder("label_issues") / "pictures" / "1.png").unlink()
    assert any(e["text"] == "no picture" for e in section(run))


def test_labels_that_have_changed_since_are_said_to_have(run):
    (run.root / "data" / "index.json").write_text("{}")
    path = run.folder("label_issues") / "result.json"
    stored = json.loads(path.read_text())
    stored["inputs"] = {"data/index.json": sha256(run.root / "data" / "index.json")}
    write_json(path, stored)
    assert "have changed since" not in report([run]).read_text()
    (run.root / "data" / "index.json").write_text('{"one": "more"}')
    assert "Images or labels have changed since" in report([run]).read_text()


def test_a_run_that_nobody_reviewed_has_no_such_section(tmp_path):
    run = synthetic_run.make(tmp_path / "run")
    assert "look wrong" not in report([run]).read_text()
    assert json.loads((run.root / "report.json").read_text())["runs"][0]["label_issues"] == {}
