from __future__ import annotations

from pathlib import Path

import pytest
from colour_model import SPEC

from softedge.bench.base import TimingPlan, integer, open_device, split_specs
from softedge.errors import UserError


def test_an_address_splits_into_kind_address_and_options() -> None:
    device = open_device("local:threads=2,provider=CPUExecutionProvider")
    assert device.address == ""
    assert device.options == {"threads": "2", "provider": "CPUExecutionProvider"}
    board = open_device("ssh://pi@board:2222?python=/opt/py/bin/python3&threads=4")
    assert board.address == "pi@board:2222"
    assert board.options == {"python": "/opt/py/bin/python3", "threads": "4"}


@pytest.mark.parametrize(
    ("spec", "folder"),
    [
        ("local", "local"),
        ("local:", "local"),
        ("local:threads=2", "local_threads_2"),
        ("ssh://pi@board:22", "ssh_pi_board_22"),
        ("ssh://pi@board?threads=4&config=/home/me/x&wheels=send", "ssh_pi_board_threads_4"),
        ("ssh://pi@board?python=/home/me/.venv/bin/python", "ssh_pi_board"),
        ("ssh://pi@board?python=/home/me/new/bin/python&name=new", "ssh_pi_board_name_new"),
    ],
)
def test_a_device_names_a_folder_that_every_file_system_takes(spec: str, folder: str) -> None:
    assert open_device(spec).folder == folder


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lokal", "did you mean 'local'"),
        ("local:thread=2", "did you mean 'threads'"),
        ("local:threads", "options only"),
        ("local:threads=2,x", "options only"),
        ("ssh://", "user@host"),
        ("ssh://pi@board:port", "port"),
        ("ssh://-oProxyCommand=x", "ssh://"),
    ],
)
def test_a_wrong_address_says_what_was_expected(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_device(spec)


def test_a_comma_parts_devices_and_their_options() -> None:
    assert split_specs("local:threads=2,provider=X, browser:,ssh://pi@board?a=1,b=2,adb://S") == (
        "local:threads=2,provider=X",
        "browser:",
        "ssh://pi@board?a=1,b=2",
        "adb://S",
    )


def test_threads_of_the_address_override_the_plan() -> None:
    plan = TimingPlan.of("quick", Path("images.npy"), SPEC, threads=1)
    assert plan.with_options({"threads": "3"}).threads == 3
    assert plan.with_options({}).threads == 1
    with pytest.raises(UserError, match="threads=0"):
        integer({"threads": "0"}, "threads", 1)


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'quick'"):
        TimingPlan.of("quik", Path("images.npy"), SPEC)
