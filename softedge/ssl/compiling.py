"""torch.compile for a method's networks, with CUDA graphs where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

How = bool | Literal["graphs"]


def compile_networks(networks: Iterable[nn.Module], how: How) -> None:
    """Compile in place: names in the state dict stay. how: ``optim.compile``; "graphs" replays CUDA graphs (on a CPU
    it compiles only), which pays where the step waits for launches: small images, small batches."""
    if how:
        for network in networks:
            network.compile(mode="reduce-overhead" if how == "graphs" else None)


def begin_step(how: How) -> None:
    """Let CUDA graphs overwrite what the networks gave in the step before; keys and features are copied by then."""
    if how == "graphs":
        torch.compiler.cudagraph_mark_step_begin()
