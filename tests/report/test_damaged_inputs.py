"""Whatever lies in the place of the files that a report reads beside the results, it is written, and does not hang."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import synthetic_run
from PIL import Image

from softedge.errors import UserError
from softedge.report import report
from softedge.report.collect import read_plan
from softedge.report.curves import read_lines
from softedge.report.pictures import of_check
from softedge.run import Run
from softedge.stages.report import report as softedge_report

READ = ("plan.json", "pretrain/metrics.jsonl", "data/near_copies.csv", "label_issues/wrong_labels.csv", "map/map.json")


def replaced(root: Path) -> Iterator[Path]:
    """The places of the files, empty."""
    for name in READ:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).unlink(missing_ok=True)
        yield root / name


@pytest.mark.parametrize("content", [b"", b"\x00" * 9, b"\xff\xfe", b"[" * 100_000, b"[]", b'{"fits": [{}]}'])
def test_a_report_is_written_whatever_the_files_beside_the_results_hold(tmp_path: Path, content: bytes):
    run = synthetic_run.make(tmp_path / "run", pictures=False)
    for path in replaced(run.root):
        path.write_bytes(content)
    assert "</html>" in report([run]).read_text()


@pytest.mark.parametrize(
    ("stage", "keys", "value", "words"),
    [
        ("check", ("details", "rows", 0, "top1"), 1.5, "details.rows[0].top1 is 1.5, not a number from 0 to 1"),
        ("check", ("details", "rows", 1, "agreement"), "high", "details.rows[1].agreement is 'high', not a number"),
        ("probe", ("metrics", "linear_top1"), -0.2, "metrics.linear_top1 is -0.2, not a number from 0 to 1"),
    ],
)
def test_an_impossible_accuracy_is_named_with_its_file_and_left_out(
    tmp_path: Path, stage: str, keys: tuple[str | int, ...], value: object, words: str
):
    run = synthetic_run.make(tmp_path / "run", pictures=False)
    path = run.folder(stage) / "result.json"
    values = json.loads(path.read_text())
    inside = values
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"is written, .*{stage}/result.json is damaged \({re.escape(words)}"):
        softedge_report(run.root)
    assert words in html.unescape((run.root / "report.html").read_text())


@pytest.mark.parametrize("fits", ["3", "[3]", '[{"megabytes": "x"}]', '[{"megabytes": NaN}]', '[{"megabytes": 1e999}]'])
def test_a_plan_of_another_shape_is_left_out(tmp_path: Path, fits: str):
    (tmp_path / "plan.json").write_text(f'{{"fits": {fits}}}')
    assert read_plan(Run(tmp_path)) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_pipes_in_the_places_of_files_are_not_waited_for(tmp_path: Path):
    run = synthetic_run.make(tmp_path / "run", pictures=False)
    for path in replaced(run.root):
        os.mkfifo(path)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the report waits for a writer"))
    signal.alarm(30)
    try:
        assert "</html>" in report([run]).read_text()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_escape_sequences_in_names_are_shown_and_never_sent_to_a_terminal(tmp_path: Path):
    run = synthetic_run.make(tmp_path / "a\x1b[31mred\x07\x9bname", pictures=False)
    for text in (report([run]).read_text(), (run.root / "MODEL_CARD.md").read_text()):
        assert "\\x1b[31mred\\x07\\x9bname" in text
        assert not {c for c in text if unicodedata.category(c) == "Cc"} - {"\n", "\t"}


def test_the_lines_of_a_curve_around_one_nested_too_deep_are_kept(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{"[" * 100_000}\n{{"step": 2}}\n')
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_an_example_that_grew_beyond_the_limit_of_pixels_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow's error for it is none of those that damage raises."""
    folder = tmp_path / "check"
    folder.mkdir()
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(folder / "0.png")
    Image.fromarray(np.full((90, 90, 3), 9, np.uint8)).save(folder / "1.png")
    monkeypatch.setattr("softedge.data.decoding.max_pixels", lambda: 2_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000)
    examples = [{"file": f"{index}.png", "index": index} for index in (0, 1, 2)]
    assert list(of_check(Run(tmp_path), examples)) == [0]
