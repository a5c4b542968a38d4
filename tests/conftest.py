"""Shared test settings: one thread, so that the suite behaves on two cores."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and the runtimes read it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

pytest_plugins = ["toy_run", "tiny_network", "colour_model", "swift_programs"]  # fixtures that several folders share


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that train for more than a few seconds")
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/commands/golden/ anew; read the difference"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "gpu" in item.keywords:
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs CUDA, and this machine has none"))


@pytest.fixture(scope="session", autouse=True)
def short_timings():
    """``bench`` times a file for a fraction of a second in place of six: no test judges a time."""
    from softedge.bench import base

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.PRESETS, "quick", base.Preset(20, 0.02, 500))
        yield
