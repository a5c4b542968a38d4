"""The picture of what the device carried before training, beside its table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from softedge.report import limits_chart, report

NETWORK = "tf_efficientnet_lite0"
FITS = [
    {"network": NETWORK, "size": 192, "p90_ms": 6.0, "megabytes": 3.4, "met": False},
    {"network": NETWORK, "size": 128, "p90_ms": 3.0, "megabytes": 3.4, "met": True},
]


def run(fits: list[dict[str, Any]] = FITS, **recipe: Any) -> dict[str, Any]:
    recipe = {"backbone": {"name": NETWORK}, "data": {"size": 128}, "check": {"max_p90": 4.0}} | recipe
    return {"plan": {"fits": fits}, "recipe": recipe, "files": [], "baselines": {}, "distill": {}}


def test_dots_and_limit_stand_at_their_times_and_the_ring_is_on_the_fit_that_met_it() -> None:
    drawn = str(limits_chart.draw("x", 940.0, FITS, 4.0, FITS[1]))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', drawn)]
    (ring,) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="9" class="halo"', drawn)
    assert len(dots) == 2 and tuple(map(float, ring)) == dots[0], "the smaller one, first from the left"
    (small, fast), (large, slow) = dots
    limit = float(re.findall(r'<line x1="[\d.]+" y1="([\d.]+)"[^>]*class="gate"', drawn)[0])
    assert small < large and slow < limit < fast
    assert (fast - limit) / (limit - slow) == pytest.approx((4.0 - 3.0) / (6.0 - 4.0), abs=0.01)
    assert drawn.count("not-passed") == 1 and "pixels</text>" in drawn and "limit 4.00\u202fms" in drawn


def test_what_is_exported_is_ringed_and_called_so_and_else_the_largest_that_met_the_limits() -> None:
    assert limits_chart.caption(run()) == "Ring: exported. Hollow: limits not met."
    fewer = run(data={"size": 96})
    assert limits_chart.caption(fewer).startswith("Ring: the largest that met the limits.")
    assert limits_chart.chosen(fewer) == limits_chart.chosen(run()) == FITS[1]
    smaller = FITS[1] | {"size": 96, "p90_ms": 2.0}
    assert limits_chart.chosen(run([smaller, *FITS], data={"size": 96})) == smaller, "in fewer pixels, for the minutes"
    assert limits_chart.caption(run([fit | {"met": False} for fit in FITS], data={"size": 96})).startswith("None")
    student = {"backbone": {"name": "large"}, "data": {"size": 224}, "distill": {"backbone": NETWORK, "size": 128}}
    assert "exported" not in limits_chart.caption(run(**student))
    assert "exported" in limits_chart.caption(run(**student) | {"files": [{"source": "distill"}]})


def test_the_page_has_it_where_a_time_was_limited_only(tmp_path: Path) -> None:
    made = synthetic_run.make(tmp_path / "run", pictures=False)
    title = "p90 latency over pixels, before training"
    for fits, drawings in ((FITS, 2), (FITS[:1], 0), ([fit | {"p90_ms": None} for fit in FITS], 0)):
        (made.root / "plan.json").write_text(json.dumps({"network": NETWORK, "fits": fits}))
        page = report([made]).read_text()
        assert page.count(f"{title}</title>") == drawings and "Untrained networks" in page


@pytest.mark.parametrize("change", [{"p90_ms": "x"}, {"p90_ms": -1}, {"size": None}, {"network": 3}])
def test_a_fit_of_another_shape_is_not_drawn(change: dict[str, Any]) -> None:
    assert limits_chart.timed(run([*FITS, FITS[0] | change])) == FITS
