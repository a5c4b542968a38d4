from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from softedge.run import Run


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with every stage on two devices, and its report beside it. Read only."""
    import synthetic_run

    from softedge.report import report

    run = synthetic_run.make(tmp_path_factory.mktemp("runs") / "full", devices=("local", "ssh_pi_board"))
    report([run])
    return run
