"""The learning curves of a run: what a planned run from given weights has, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from softedge.report import report, search_charts, svg
from softedge.report.curves import training_losses
from softedge.report.learning_charts import curve


def charts(page: str) -> dict[str, str]:
    """Title -> text for a screen reader, of the drawings for a desk."""
    found = re.findall(r"<svg[^>]*><title[^>]*>(.*?)</title><desc[^>]*>(.*?)</desc>", page)
    return dict(found)


def test_a_curve_of_one_measurement_is_drawn():
    """``softedge report`` during the first epoch of a training was a traceback."""
    drawn = str(curve("id", 640.0, [("k-NN", [[0.0, 0.86]])], "accuracy", percent=True, reference=("start", 0.86)))
    assert "NaN" not in drawn and "k-NN 86" in drawn and "nan" not in drawn


def test_a_negative_loss_falls_from_left_to_right_in_its_curve():
    """SimSiam's: the axis ran from 0 to the largest value, upside down."""
    drawn = str(curve("id", 640.0, [("", [[0.0, -0.2], [5.0, -0.8], [10.0, -0.9]])], "loss"))
    (points,) = re.findall(r'd="M([^"]*)" class="line', drawn) or re.findall(r'class="line line-0" d="M([^"]*)"', drawn)
    heights = [float(pair) for pair in re.findall(r"[-\d.]+[ ,]([-\d.]+)", points)]
    assert heights == sorted(heights) and 36 <= heights[0] < heights[-1] <= 260 - 44  # down is a larger y


def test_a_run_that_was_only_fine_tuned_shows_the_loss_of_fine_tuning_and_of_distillation(tmp_path: Path):
    run = synthetic_run.make(tmp_path / "run", without=("pretrain",))
    synthetic_run.result(run, "pretrain", {"epochs": 0, "steps": 0})
    assert not [title for title in charts(report([run]).read_text()) if "loss" in title]
    losses = [[9, 2.5], [19, 1.25], [29, 0.75]]
    synthetic_run.result(run, "finetune", {"top1": 0.98, "n_train": 1177}, details={"losses": losses})
    taught = {"top1": 0.98, "n_train": 450, "n_unlabelled": 1400}
    synthetic_run.result(run, "distill", taught, details={"losses": [[0, 1.5], [1, 1.375]]})
    page = report([run]).read_text()
    assert charts(page).items() >= {
        ("fine-tuning loss over steps", "0.750, from 2.50"), ("distillation loss over steps", "1.38, from 1.50"),
    }  # fmt: skip
    drawn = page[page.index("fine-tuning loss over steps") :].partition("</svg>")[0]
    assert ">steps</text>" in drawn and ">30</text>" in drawn, "the axis ends at the last step, counted from 1"
    assert "from 1\u202f177 labelled images;" in page
    assert "from 450 labelled images and 1\u202f400 without a label;" in page


@pytest.mark.parametrize(
    "losses", [None, [], [[3, 0.5]], 7, "x", [[1], ["a", 2], None], [[0, None], [1, float("nan")]]]
)
def test_losses_that_are_no_curve_are_left_out(losses: Any):
    assert training_losses({"finetune": {"losses": losses, "metrics": {}}}) == []


@pytest.mark.parametrize("ratio", [0.97, 0.985, 0.99, 1.0, 1.01, 1.03])
@pytest.mark.parametrize("width", [360.0, 720.0])
def test_the_name_of_a_step_does_not_cross_the_line_of_fp32(ratio: float, width: float):
    taken = [
        {"step": "weights", "agreement": 0.99, "time_over_fp32": ratio, "passed": True},
        {"step": "default", "agreement": 0.97, "time_over_fp32": 0.6, "passed": False},
    ]
    drawn = str(search_charts.steps("id", width, taken))
    (line,) = re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="\1"[^>]*class="gate"', drawn)
    (left,) = re.findall(r'<text x="([\d.]+)"[^>]*>weights</text>', drawn)
    assert not float(left) < float(line) < float(left) + svg.text_width("weights", 13)
