"""The picture of accuracy over latency before training, in place of that of latency over pixels."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_run

from softedge.report import front_chart, report

NETWORK = "tf_efficientnet_lite0"


def fit(size: int, p90: float, top1: float | None, met: bool = True, network: str = NETWORK) -> dict[str, Any]:
    images = 0 if top1 is None else 400
    return {"network": network, "size": size, "p90_ms": p90, "megabytes": 3.4, "met": met} | {
        "top1": top1,
        "images": images,
    }


UNJUDGED = fit(64, 0.2, None, network="mobilenetv3_small_050")
FITS = [UNJUDGED, fit(192, 6.0, 0.8, met=False), fit(96, 1.5, 0.7), fit(64, 1.6, 0.6), fit(128, 3.0, 0.75)]


def run(fits: list[dict[str, Any]], size: int = 128) -> dict[str, Any]:
    recipe = {"backbone": {"name": NETWORK}, "data": {"size": size}, "check": {"max_p90": 4.0}}
    return {"plan": {"fits": fits}, "recipe": recipe, "files": [], "baselines": {}, "distill": {}}


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_a_comparison_of_all_pairs_leaves(seed: int) -> None:
    generator = np.random.default_rng(seed)
    fits = [fit(n, *map(float, generator.integers(1, 8, 2) / 8)) for n in range(12)]  # ties, too

    def dominated(one: dict[str, Any]) -> bool:
        return any(
            other["p90_ms"] <= one["p90_ms"]
            and other["top1"] >= one["top1"]
            and (other["p90_ms"], other["top1"]) != (one["p90_ms"], one["top1"])
            for other in fits
        )

    expected = {(one["p90_ms"], one["top1"]) for one in fits if not dominated(one)}
    found = [(one["p90_ms"], one["top1"]) for one in front_chart.best(fits)]
    assert found == sorted(expected)


def test_dots_line_limit_and_ring_stand_where_their_numbers_are() -> None:
    fits = front_chart.judged(run(FITS))
    assert fits == FITS[1:]
    drawn = str(front_chart.draw("x", 940.0, fits, 4.0, FITS[-1]))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', drawn)]
    (ring,) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="9" class="halo"', drawn)
    assert len(dots) == 4 and tuple(map(float, ring)) == dots[-1]
    slow, fast, _, middle = dots
    share = (middle[0] - fast[0]) / (slow[0] - fast[0])
    assert share == pytest.approx(math.log(3.0 / 1.5) / math.log(6.0 / 1.5), abs=0.01), "time is on a logarithmic axis"
    assert (fast[1] - middle[1]) / (fast[1] - slow[1]) == pytest.approx(0.5, abs=0.01), "and accuracy on a linear one"
    limit = float(re.findall(r'<line x1="([\d.]+)"[^>]*class="gate"', drawn)[0])
    assert middle[0] < limit < slow[0] and drawn.count("not-passed") == 1
    (path,) = re.findall(r'<path d="M([^"]*)" class="line front"', drawn)
    points = [tuple(map(float, point.split(","))) for point in path.split("L")]
    assert points == [pytest.approx(dot, abs=0.06) for dot in (fast, middle, slow)], "64 pixels are slower and worse"


@pytest.mark.parametrize("width", [940.0, 335.0])
def test_numbers_and_names_cover_neither_dots_nor_each_other(width: float) -> None:
    other = [fit(size, p90 / 3, top1 - 0.02, network="mobilenetv3_small_100") for _, size, p90, top1 in _numbers(FITS)]
    fits = [*FITS[1:], *other]
    drawn = str(front_chart.draw("x", width, fits, 4.0, fits[3]))
    texts = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label ([^"]*)">([^<]*)</text>', drawn)
    boxes = []
    for x, y, kind, content in texts:
        half = 0.55 * 14 * len(content) / 2  # of a usual font
        middle = float(x) if "middle" in kind else float(x) + half
        boxes.append((middle - half, float(y) - 11, middle + half, float(y)))
    boxes += [
        (float(x) - 5, float(y) - 5, float(x) + 5, float(y) + 5)
        for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', drawn)
    ]
    assert len(boxes) == 8 + 2 + 8
    for number, (left, top, right, bottom) in enumerate(boxes[:10]):
        for a, b, c, d in boxes[number + 1 :]:
            assert min(right, c) <= max(left, a) or min(bottom, d) <= max(top, b)
        assert left >= 0 and right <= width


def _numbers(fits: list[dict[str, Any]]) -> list[tuple[str, int, float, float]]:
    return [(f["network"], f["size"], f["p90_ms"], f["top1"]) for f in fits if f["top1"] is not None]


def test_the_caption_has_the_standard_error_and_names_what_has_no_accuracy() -> None:
    said = front_chart.caption(run(FITS))
    assert "400 training images" in said and f"standard error {100 * math.sqrt(0.6 * 0.4 / 400):.1f} points" in said
    assert said.endswith("Not drawn, without starting weights: mobilenetv3_small_050 at 64 pixels.")
    assert "Not drawn" not in front_chart.caption(run(FITS[1:]))


@pytest.mark.parametrize("change", [{"top1": "x"}, {"top1": 1.2}, {"top1": True}, {"images": 0}, {"images": None}])
def test_an_accuracy_of_another_shape_is_none(change: dict[str, Any]) -> None:
    assert front_chart.judged(run([*FITS[1:], FITS[1] | change])) == FITS[1:]


def test_without_an_accuracy_of_the_chosen_one_there_is_no_front() -> None:
    assert front_chart.judged(run([UNJUDGED, FITS[1], FITS[4] | {"top1": None}])) == []
    assert front_chart.judged(run([UNJUDGED, FITS[4]])) == [], "a single dot is none"


@pytest.mark.parametrize("accuracy", [True, False])
def test_the_page_has_the_front_and_without_accuracies_the_latency_over_pixels(tmp_path: Path, accuracy: bool) -> None:
    made = synthetic_run.make(tmp_path / "run", pictures=False)
    fits = FITS if accuracy else [{k: v for k, v in f.items() if k not in ("top1", "images")} for f in FITS]
    (made.root / "plan.json").write_text(json.dumps({"network": NETWORK, "fits": fits}))
    page = report([made]).read_text()
    assert page.count("Accuracy over p90 latency, before training</title>") == 2 * accuracy
    assert page.count("p90 latency over pixels, before training</title>") == 2 * (not accuracy)
    assert page.count(">top-1 before training</th>") == accuracy
    assert page.count("<span>not measured</span>") == accuracy
    values = json.loads((made.root / "report.json").read_text())["runs"][0]["plan"]["fits"]
    assert [one.get("top1") for one in values] == [one["top1"] if accuracy else None for one in FITS]
