"""Photos without labels: nobody knows which answer is right, and no accuracy is reported."""

from __future__ import annotations

import json
import re

import pytest
import synthetic_run
from test_page import Page

from softedge.report import report
from softedge.run import Run


def unlabel(run: Run) -> None:
    """What the check and the benchmarks leave of photos without labels."""
    path = run.folder("check") / "result.json"
    stored = json.loads(path.read_text())
    for row in stored["details"]["rows"]:
        for key in ("top1", "top1_fp32", "drop"):
            del row[key]
    for example in stored["details"]["examples"]:
        example["label"] = None
    stored["details"]["images"]["labelled"] = False
    path.write_text(json.dumps(stored))
    for path in run.folder("bench").glob("*/result.json"):
        stored = json.loads(path.read_text())
        for key in ("top1", "n_images"):
            stored["metrics"].pop(key, None)
        stored["details"].pop("quality", None)
        stored["skipped"]["top1"] = "not run: no labelled test images"
        path.write_text(json.dumps(stored))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on photos without labels, and its report beside it. Read only."""
    run = synthetic_run.make(tmp_path_factory.mktemp("unlabelled") / "run", without=("pretrain", "probe"))
    unlabel(run)
    report([run])
    return run


def test_of_photos_without_labels_the_report_does_not_say_which_answer_is_right(unlabelled: Run, full: Run) -> None:
    text = (unlabelled.root / "report.html").read_text()
    found = Page(text)
    cards = [e["text"] for e in found.elements if e["tag"] == "li" and "fp32 says" in e["text"]]
    assert len(cards) == 2
    for card in cards:
        assert re.findall(r"(\S+ \S+ int8|\S+ int8) says 9, 61\s%", card) and "✗" not in card
    assert "Images where int8 answers differently" in {e["text"] for e in found.all("h3")}
    assert "int8 gets wrong" not in text
    assert "Images that int8 gets wrong and fp32 right" in (full.root / "report.html").read_text()  # with labels
