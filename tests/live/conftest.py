from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # chromium and subjects, beside this file

from chromium import PROGRAM, Chromium

from softedge.bench.browser import ort_web
from softedge.errors import UserError

Browse = Callable[..., Chromium]


@pytest.fixture(scope="session")
def runtime() -> None:
    """onnxruntime-web from the cache, or fetched now."""
    try:
        ort_web.files("wasm")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def browse(chromium: Browse, runtime: None) -> Browse:
    """``chromium``, for pages that run a model."""
    return chromium


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browse]:
    """Open an address in a Chromium of its own, with a fresh profile: ``chromium(url, *flags)``."""
    if PROGRAM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    opened: list[Chromium] = []

    def start(url: str, *flags: str, **more: tuple[str, ...]) -> Chromium:
        opened.append(Chromium(tmp_path / f"profile-{len(opened)}", *flags, **more))
        opened[-1].phone()
        opened[-1].open(url)
        return opened[-1]

    yield start
    for browser in opened:
        browser.close()
