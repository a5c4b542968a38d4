"""Several processes, one training: ranks and collectives. With one process every function is a no-op.

Processes are started by ``torchrun``, by SLURM's ``srun``, or by ``softedge pretrain --gpus N`` (``ssl/launch.py``).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from softedge.errors import UserError, first_line
from softedge.progress import say

T = TypeVar("T")
W = TypeVar("W")
BUCKET = 1 << 25  # gradient elements per all-reduce
LEFT_ALONE = 75  # exit code of a rank that ends only because another one has
SILENT_PEER = 76  # exit code of a rank that ends because another one no longer answers
_GONE = ("closed by peer", "reset by peer", "broken pipe", "timed out", "connection refused")  # what gloo says


def active() -> bool:
    """Whether a process group has been started."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among all, 0 when alone."""
    return dist.get_rank() if active() else 0


def world() -> int:
    """How many processes train together, 1 when alone."""
    return dist.get_world_size() if active() else 1


def device() -> torch.device:
    """Where this process computes: its own GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device("cuda", local % torch.cuda.device_count())  # SLURM may show each process only its own GPU


def launched() -> bool:
    """Whether ``softedge --gpus`` has started this process and speaks for all ranks at the end."""
    return "SOFTEDGE_LAUNCHED" in os.environ


def asked_world() -> int:
    """The number of processes that the launcher says it started (torchrun or SLURM's srun), 1 without one.

    sbatch gives its script SLURM_NTASKS and SLURM_PROCID too, although that is one process: only srun sets the step's.
    """
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))


@contextlib.contextmanager
def joined(timeout_minutes: float = 30.0) -> Iterator[None]:
    """Join the process group that the launcher describes, and leave it at the end. Alone: nothing happens.

    The timeout bounds how long the others wait for a rank that died without a word. A rank that finds another one gone
    ends with exit code LEFT_ALONE and no traceback: the fault is not its own.
    """
    if active() or asked_world() == 1:
        yield
        return
    if "WORLD_SIZE" not in os.environ:
        _read_slurm()
    where = device()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    try:
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo", timeout=datetime.timedelta(minutes=timeout_minutes)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {asked_world()} processes could not find each other: {first_line(error)}") from error
    try:
        yield
    except RuntimeError as error:
        if not _another_is_gone(error):
            raise
        if not launched():
            say(f"rank {rank()} stops because another rank has ended: {first_line(error)}")
        raise SystemExit(LEFT_ALONE) from None
    finally:
        dist.destroy_process_group()


def _another_is_gone(error: RuntimeError) -> bool:
    """Whether a collective failed since a rank is not there any more; NCCL's errors have a class, gloo's have not."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    return "gloo" in str(error) and any(words in str(error).lower() for words in _GONE)


def _read_slurm() -> None:
    """Give torch the names it knows for what srun says."""
    environ = os.environ
    environ["WORLD_SIZE"], environ["RANK"] = environ["SLURM_STEP_NUM_TASKS"], environ["SLURM_PROCID"]
    environ.setdefault("LOCAL_RANK", environ.get("SLURM_LOCALID", "0"))
    if "MASTER_ADDR" not in environ:
        nodes = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost"))
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
            )
            nodes = listed.stdout.split()[0]
        environ["MASTER_ADDR"] = nodes
    environ.setdefault("MASTER_PORT", str(20000 + int(environ.get("SLURM_JOB_ID", 0)) % 20000))


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """(N, …) on every rank -> (world · N, …) in rank order on every rank. No gradient passes."""
    if world() == 1:
        return tensor
    whole = tensor.new_empty((world() * len(tensor), *tensor.shape[1:]))
    dist.all_gather_into_tensor(whole, tensor.contiguous())
    return whole


def of_first_rank(tensor: Tensor) -> Tensor:
    """The first rank's, for all: sums over many points may differ in the last bit between machines."""
    return gather(tensor[None])[0]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        return whole.chunk(world())[rank()]


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """``gather`` through which gradients pass: each rank's rows get the sum of what all ranks' losses say about them.

    With ``average_gradients`` after it, the gradient is that of the mean of the ranks' losses. All ranks must go
    backward through it.
    """
    return tensor if world() == 1 else _Gather.apply(tensor)


@torch.no_grad()
def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in large flat pieces.

    One call after the last micro-batch instead of a DDP wrapper: the networks here are small, the queue stays out of
    it (a buffer inside DDP is broadcast at every forward), and a state dict has the same names on one rank and many.
    """
    if world() == 1:
        return
    with_gradient = [p for p in parameters if p.grad is not None]
    start = 0
    while start < len(with_gradient):
        size, end = 0, start
        while end < len(with_gradient) and (end == start or size + with_gradient[end].numel() <= BUCKET):
            size += with_gradient[end].numel()
            end += 1
        gradients = [p.grad for p in with_gradient[start:end] if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= world()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(mean.view(gradient.shape))
        start = end


def on_first_rank(first: Callable[[Callable], T], others: Callable[[], object], result: Callable[[], T]) -> T:
    """Let rank 0 decide whether collective work is done, and have the other ranks join in exactly then.

    first(follow): runs on rank 0; it calls ``follow(work)`` at most once, which lets the others start ``others()``.
    result: what the other ranks return, once rank 0 is through. An error on rank 0 before the work ends all ranks.
    """
    go = torch.zeros((), dtype=torch.int64, device=device())  # 1: work, 2: nothing to do, 3: failed
    if rank() != 0:
        dist.broadcast(go, 0)
        if go == 3:
            raise SystemExit(1)  # rank 0 has said why
        if go == 1:
            others()
        dist.barrier()
        return result()
    announced = False

    def announce(what: int) -> None:
        nonlocal announced
        if not announced:
            announced = True
            dist.broadcast(go.fill_(what), 0)

    def follow(work: Callable[[], W]) -> W:
        announce(1)
        return work()

    try:
        value = first(follow)
        announce(2)
    finally:
        announce(3)
    dist.barrier()
    return value


def anyone(flag: bool) -> bool:
    """Whether any rank says yes; all ranks must ask."""
    if world() == 1:
        return flag
    votes = torch.tensor(int(flag), device=device())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes)


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the ranks."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def differing(tensors: Sequence[Tensor]) -> bool:
    """Whether ``tensors`` are not the same on all ranks, judged by four sums each: cheap enough to ask every epoch."""
    if world() == 1:
        return False
    everyone = gather(torch.cat([_fingerprint(t) for t in tensors])[None])
    return bool((everyone != everyone[:1]).any())


def _fingerprint(tensor: Tensor) -> Tensor:
    """(4,) float64: sums of rows and of columns, plain and weighted by position; no large copy."""
    table = tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor.reshape(1, -1)
    sums = [table.sum(dim, dtype=torch.float64) for dim in (0, 1)]
    ramps = [torch.linspace(1, 2, len(s), dtype=torch.float64, device=s.device) for s in sums]
    return torch.stack([*(s.sum() for s in sums), *(s @ ramp for s, ramp in zip(sums, ramps))])
