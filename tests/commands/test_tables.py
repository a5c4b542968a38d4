"""What the terminal says after a command."""

import pytest

from softedge.commands import tables
from softedge.records import Result


def test_a_number_is_read_with_its_unit():
    metrics = {
        "top1": 0.5,
        "voc07_AP50": 0.4,
        "gain_low": -0.25,
        "probe_gap": 0.125,
        "peak_memory_bytes": 76_959_744,
        "seconds": 7.659,
        "n": 3,
    }
    result = Result("x", "run", metrics, {}, {}, {}, "", 0.0, {})
    assert tables.stage(result).splitlines() == [
        "x  top1               50.0 %",
        "x  voc07_AP50         40.0 %",
        "x  gain_low           -25.0 points",
        "x  probe_gap          +12.5 points",
        "x  peak_memory_bytes  76.96 MB",
        "x  seconds            7.7 s",
        "x  n                  3",
    ]


@pytest.mark.parametrize(
    ("metrics", "details", "title"),
    [
        ({"epochs": 0}, {}, "starting weights"),
        ({"epochs": 3}, {"kept": "start"}, "starting weights"),
        ({"epochs": 3}, {"kept": "trained"}, "pretrained"),
        ({"epochs": 3}, {}, "pretrained"),
    ],
)
def test_features_that_were_never_pretrained_are_not_called_so(metrics, details, title):
    result = Result("pretrain", "run", metrics, {}, {}, {}, "", 0.0, details)
    assert tables.features_of(result) == title


def test_a_loss_that_rounds_to_nothing_has_no_sign():
    assert tables.number("drop", -0.0001) == "0.0 %" and tables.number("drop", -0.012) == "-1.2 %"
