"""Start the ranks: what ``softedge pretrain --gpus N`` does on each machine."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from softedge.distributed import LEFT_ALONE, SILENT_PEER
from softedge.errors import UserError
from softedge.files import temporary_folder
from softedge.machine import threads


def launch(arguments: Sequence[str], gpus: int, nodes: int = 1, beside: Path | None = None) -> None:
    """Run ``python -m softedge ARGUMENTS`` once per GPU under torchrun's agent, and wait for all of them.

    beside: a file of the run, which then holds what the launcher writes; a later start removes what a killed one left.
    One rank that fails ends all. It has printed its own message, so that ``Ended`` only carries its exit code.
    """
    available = torch.cuda.device_count()
    if available and gpus > available:
        raise UserError(f"--gpus {gpus}: this machine has {available}; use --gpus {available}")
    address = os.environ.get("MASTER_ADDR")
    if nodes > 1 and not address:
        raise UserError(
            f"--nodes {nodes}: set MASTER_ADDR to the first machine's name and run this command on each machine"
        )
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [n for n in logging.root.manager.loggerDict if n.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # each has a level of its own
    threads.share(gpus)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")  # s for the step and its checkpoint, then SIGKILL
    os.environ["SOFTEDGE_LAUNCHED"] = str(os.getpid())  # the ranks' parent (watch.py)
    config = functools.partial(
        LaunchConfig,
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=gpus,
        run_id=os.environ.get("SOFTEDGE_RUN_ID", "softedge"),
        rdzv_backend="c10d",
        rdzv_endpoint=f"{address}:{os.environ.get('MASTER_PORT', '29500')}" if nodes > 1 else "localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        with temporary_folder("ranks", beside) as results:  # each rank prints the result; one is enough
            logs = DefaultLogsSpecs(log_dir=str(results), redirects=Std.OUT)
            elastic_launch(config(logs_specs=logs), sys.executable)("-m", "softedge", *arguments)
    except ChildFailedError as error:
        failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
        # The others notice at once that a rank is gone, so that they may be seen to end before it.
        # The agent has killed the silent rank itself, too: its code says less.
        if any(failure.exitcode == SILENT_PEER for failure in failures):
            raise Ended(SILENT_PEER) from None
        first = next((failure for failure in failures if failure.exitcode != LEFT_ALONE), failures[0])
        raise Ended(first.exitcode) from None
    except SignalException as error:  # passed on to the ranks, which have written a checkpoint
        _kill_children()
        raise Ended(-int(error.sigval)) from None
    finally:
        del os.environ["SOFTEDGE_LAUNCHED"]


def _kill_children() -> None:
    """End ranks that are still there because a second Ctrl-C came while the first waited for them."""
    with contextlib.suppress(OSError):  # only Linux has the list
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


class Ended(Exception):
    """The ranks have ended with an error; ``code`` is the exit code of the first that did (negative: a signal)."""

    def __init__(self, code: int):
        super().__init__(f"the ranks ended with code {code}")
        self.code = code
