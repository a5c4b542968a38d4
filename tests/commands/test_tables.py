"""What the terminal says after a command."""

import pytest

from softedge.commands import tables
from softedge.records import Result


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
