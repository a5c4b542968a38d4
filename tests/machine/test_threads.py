"""The number of threads a command computes with, seen from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from softedge.machine import threads

SAY = """
import os
from softedge.machine import threads
os.sched_getaffinity = lambda _: set(range({cores}))
threads.prepare()
{then}
print(os.environ["OMP_NUM_THREADS"], os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


def environment_after(cores: int, then: str = "", **given: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", SAY.format(cores=cores, then=then)]
    return subprocess.run(command, env=clean | given, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
@pytest.mark.parametrize(("cores", "expected"), [(1, "1"), (2, "1"), (8, "7")])
def test_one_core_is_left_to_the_loader_and_waiting_threads_give_their_core_away_soon(cores, expected):
    assert environment_after(cores) == [expected, "None", "10000"]


def test_what_the_user_has_set_wins():
    assert environment_after(8, OMP_NUM_THREADS="3", OMP_WAIT_POLICY="ACTIVE") == ["3", "ACTIVE", "None"]
    assert environment_after(8, "threads.share(4)", OMP_NUM_THREADS="3") == ["3", "None", "10000"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
@pytest.mark.parametrize(("ranks", "expected"), [(2, "4"), (3, "2"), (16, "1")])
def test_ranks_share_the_cores(ranks, expected):
    assert environment_after(8, f"threads.share({ranks})") == [expected, "None", "10000"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
def test_only_the_cores_this_process_may_use_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert threads.cores() == 1
