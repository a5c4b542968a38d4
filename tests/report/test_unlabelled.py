"""Photos without labels: nobody knows which answer is right, and no accuracy is reported."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


@pytest.mark.parametrize("timed", [True, False])
def test_the_card_of_photos_without_labels_claims_no_accuracy_and_no_latency_that_nobody_measured(
    tmp_path: Path, timed: bool
) -> None:
    run = synthetic_run.make(tmp_path / "run", without=("pretrain", "probe", *(() if timed else ("bench",))))
    unlabel(run)
    report([run])
    card = (run.root / "MODEL_CARD.md").read_text()
    assert "metrics:" not in card and "Accuracy was measured" not in card and "top-1 | drop" not in card
    assert (
        "- The 120 images of the check have no labels: no accuracy was measured, the files were compared with PyTorch "
        "fp32.\n"
    ) in card
    assert ("Latency was measured" in card) == timed
    rows = [line.count("|") for line in card.splitlines() if line.startswith("|")]
    assert len(set(rows)) == 1, "every row of the table has the same columns"


def test_the_card_of_labelled_images_says_what_its_accuracy_is_of(full: Run) -> None:
    card = (full.root / "MODEL_CARD.md").read_text()
    assert "metrics:\n- accuracy\nmodel-index:" in card and "- Accuracy was measured on the test images" in card
    assert "| file | size | top-1 | drop, points | agreement |" in card and "have no labels" not in card


def test_the_page_says_once_that_there_are_no_labels_and_has_no_column_for_an_accuracy(
    unlabelled: Run, full: Run
) -> None:
    text = (unlabelled.root / "report.html").read_text()
    found = Page(text)
    assert not any(e["text"].startswith("top-1") for e in found.all("th"))
    assert any(e["text"].startswith("top-1") for e in Page((full.root / "report.html").read_text()).all("th"))
    assert "have no labels: no accuracy was measured" in text and "drop of at most" not in text
    stored = json.loads((unlabelled.root / "report.json").read_text())["runs"][0]
    entries = [entry for entry in stored["not_run"] if "label" in entry["why"]]
    assert entries == [{"what": "accuracy", "status": "not run", "why": "no labelled test images"}]
    assert (unlabelled.root / "MODEL_CARD.md").read_text().count("no label") == 1, "in its limits"
