"""Checkpoints: atomic, read without unpickling code, and complete: a resumed run ends in the same bits.

Batches, views and key groups are functions of (seed, epoch, step), so the position is all that is kept of them. The
global random states are kept as well, for networks with dropout or stochastic depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge import distributed
from softedge.errors import ADD_FORCE, NO_SPACE, UserError, no_space
from softedge.progress import say
from softedge.weights import checkpoints

VERSION = 1
LAST, PREVIOUS = "last.pt", "previous.pt"
_SHARED = ("queue.", "prototypes.")  # float buffers that are the same on all ranks


def save(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any]) -> None:
    """Write a checkpoint from rank 0, keeping the one before as ``previous.pt``. All ranks must call it.

    position: plain values, given back by ``load``.
    """
    own = distributed.gather(_own_state(method)[None])
    randoms = distributed.gather(torch.get_rng_state()[None].to(own.device)).cpu()
    on_cuda = distributed.gather(_cuda_state()[None].to(own.device)).cpu()
    if distributed.rank() != 0:
        return
    content = {
        "version": VERSION,
        "world": distributed.world(),
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "position": position,
        "own": own,
        "random": {"torch": randoms, "cuda": on_cuda, "python": random.getstate(), "numpy": _numpy_state()},
    }

    def keep_previous() -> None:
        with contextlib.suppress(OSError):
            os.replace(path, path.with_name(PREVIOUS))

    with full_disk_explained(path.parent):
        checkpoints.write(path, content, before=keep_previous)


def load(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore everything from ``path``, or from the one before when it is damaged; None when there is none.

    UserError when there are checkpoints and none is sound: a training must not start at step 0 unasked.
    """
    content = newest(path)
    if content is None:
        return None
    if content.get("version") != VERSION:
        raise UserError(f"{path} is of another version ({content.get('version')}); {ADD_FORCE} to start over")
    if content["world"] != distributed.world():
        raise UserError(
            f"{path} was written by {content['world']} ranks and cannot be resumed exactly on {distributed.world()}; "
            f"use {content['world']}, or {ADD_FORCE} to start over"
        )
    method.load_state_dict(content["method"])
    try:
        optimizer.load_state_dict(content["optimizer"])
    except ValueError as error:  # another version grouped the parameters otherwise
        raise UserError(f"{path} does not fit this version's optimizer ({error}); {ADD_FORCE} to start over") from error
    _restore_own(method, content["own"][distributed.rank()])
    states = content["random"]
    torch.set_rng_state(states["torch"][distributed.rank()].clone())  # torch crashes on a row of a larger tensor
    on_cuda = states["cuda"][distributed.rank() : distributed.rank() + 1]  # a list in checkpoints of earlier versions
    if len(on_cuda) and len(on_cuda[0]) and torch.cuda.is_available():
        torch.cuda.set_rng_state(on_cuda[0].clone(), distributed.device())
    random.setstate((states["python"][0], tuple(states["python"][1]), states["python"][2]))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    return content["position"]


def newest(path: Path) -> dict[str, Any] | None:
    """The content of ``path``, or of the one before when it is damaged; None when there is neither."""
    damaged: list[str] = []
    for candidate in (path, path.with_name(PREVIOUS)):
        if candidate.exists():
            try:
                content: dict[str, Any] = checkpoints.read(candidate)
            except checkpoints.Damaged as error:
                damaged.append(f"{candidate}: {error}")
                continue
            if damaged:
                say(f"checkpoint {damaged[0]}; resuming from {candidate.name}, the one before")
            return content
    if damaged:
        raise UserError(
            f"no checkpoint can be used ({'; '.join(damaged)}); put sound copies there, or {ADD_FORCE} to start over"
        )
    return None


def seed_everything(seed: int) -> None:
    """Start the global random states from ``seed``: dropout and third-party layers draw from them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def _float_buffers(method: nn.Module) -> list[Tensor]:
    """BatchNorm's running statistics: the only state that differs between ranks."""
    return [b for name, b in method.named_buffers() if b.dtype == torch.float32 and not name.startswith(_SHARED)]


def _own_state(method: nn.Module) -> Tensor:
    buffers = _float_buffers(method)
    return torch.cat([b.flatten() for b in buffers]) if buffers else torch.zeros(1)


def _restore_own(method: nn.Module, state: Tensor) -> None:
    buffers = _float_buffers(method)
    for buffer, values in zip(buffers, state.split([b.numel() for b in buffers]) if buffers else ()):
        buffer.copy_(values.view(buffer.shape))


def _cuda_state() -> Tensor:
    """Of this rank's own GPU: asking for all of them would open a context on each, and see those of no other rank."""
    if not torch.cuda.is_available():
        return torch.empty(0, dtype=torch.uint8)
    return torch.cuda.get_rng_state(distributed.device())


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  (the legacy state is what a third-party layer would use)
    return kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest


@contextlib.contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk into one line; what was written before stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a short write as a RuntimeError without the errno.
        if isinstance(error, RuntimeError) and _nearly_full(folder):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            kept = any((folder / name).exists() for name in (LAST, PREVIOUS))
            then = "resumes from the last checkpoint" if kept else "starts at step 0: there is no checkpoint yet"
            raise UserError(f"{no_space(error, folder)}, and run the same command again; it {then}") from error
        raise


def _nearly_full(folder: Path) -> bool:
    import shutil

    return shutil.disk_usage(folder).free < 64 << 20
