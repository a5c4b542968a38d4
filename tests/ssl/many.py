"""Each further method on the tiny backbone, and the steps that the loop takes with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import SPEC, TinyBackbone, data, views
from torch import nn

from softedge import config
from softedge.errors import Interrupted
from softedge.records import InputSpec
from softedge.run import Run
from softedge.ssl import train
from softedge.ssl.byol import BYOL
from softedge.ssl.dino import DINO
from softedge.ssl.method import Method
from softedge.ssl.msf import MSF
from softedge.ssl.pcl import PCL
from softedge.ssl.seed import SEED
from softedge.ssl.simclr import SimCLR
from softedge.ssl.simco import SimCo
from softedge.ssl.simmoco import SimMoCo
from softedge.ssl.simsiam import SimSiam
from softedge.ssl.teaching import KeptFeatures
from softedge.ssl.visual_words import VisualWords
from softedge.stages import pretrain

NAMES = ("simclr", "simmoco", "simco", "byol", "simsiam", "msf", "pcl-v2", "seed", "dino", "visual-words")
VARIANTS = (*NAMES, "seed-whole")  # a teacher that sees whole images once
WITH_PROJECTOR = {"projector": (16, 4)}


def build(name: str, seed: int = 0, **settings) -> Method:
    """A method with reproducible weights; 16 images, a queue of 32."""
    torch.manual_seed(seed)
    backbone = TinyBackbone()
    if name == "simclr":
        return SimCLR(SimCLR.Settings(**WITH_PROJECTOR | settings), backbone, seed)
    if name == "simmoco":
        return SimMoCo(SimMoCo.Settings(**WITH_PROJECTOR | settings), backbone, seed)
    if name == "simco":
        return SimCo(SimCo.Settings(**WITH_PROJECTOR | settings), backbone, seed)
    if name == "byol":
        return BYOL(BYOL.Settings(**WITH_PROJECTOR | {"predictor": 16} | settings), backbone, seed)
    if name == "simsiam":
        return SimSiam(SimSiam.Settings(**WITH_PROJECTOR | {"predictor": 16} | settings), backbone, seed)
    if name == "msf":
        return MSF(MSF.Settings(**WITH_PROJECTOR | {"predictor": 16} | settings), backbone, 32, seed)
    if name == "dino":
        values = {"projector": (16, 4), "prototypes": 12, "freeze_epochs": 0.0}
        return DINO(DINO.Settings(**values | settings), backbone, seed)
    if name == "pcl-v2":
        values = WITH_PROJECTOR | {"clusters": (2, 4), "instance_epochs": 0, "queue": 32, "key_norm": "batch"}
        return PCL(PCL.Settings(**values | settings), backbone, 32, seed, images=16)
    if name == "visual-words":
        values = {"projector": (16, 8), "words": 6, "grid": 2, "patch": 4}
        return VisualWords(VisualWords.Settings(**values | settings), backbone, 16, 16, seed)
    teacher: TinyBackbone | KeptFeatures = TinyBackbone()
    if name == "seed-whole":
        teacher = KeptFeatures(teacher, SPEC, 16, 8, 0.5)
    return SEED(SEED.Settings(**{"projector": (16,)} | settings), backbone, teacher, 32, seed)


def embed(network: nn.Module, chosen: NDArray[np.int64] | None = None, spec: InputSpec | None = None) -> torch.Tensor:
    """What the loop's ``embed`` gives: the network in eval mode on the same 16 images, whatever the ``spec``."""
    images = views(16, seed=100)[0]
    network.eval()
    with torch.no_grad():
        made = network(images if chosen is None else images[torch.from_numpy(chosen)])
    network.train()
    return made


class Steps:
    """The loop's step, without data and schedule."""

    def __init__(self, made: Method, lr: float = 0.05):
        self.made = made
        self.optimizer = torch.optim.SGD(made.trained_parameters(), lr, momentum=0.9)

    def take(self, number: int, count: int = 8) -> float:
        index = torch.arange(count) + (number % 2) * (16 - count)
        loss = self.made(views(count, seed=number), index)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.made.after_step(number / 10)
        return loss.item()


def stopped_and_whole(wanted: config.Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    """Final states of a training that was stopped in the middle of its second epoch and started again, and of one that
    was not."""
    whole, stopped = Run(folder / "whole"), Run(folder / "stopped")
    pretrain.stage(whole, wanted, data())
    update, done = train.Training.update, 0

    def and_stop(self, *args):
        nonlocal done
        update(self, *args)
        done += 1
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(train.Training, "update", and_stop)
        pretrain.stage(stopped, wanted, data())
    pretrain.stage(stopped, wanted, data())
    ours, theirs = (
        torch.load(run.folder("pretrain") / "last.pt", weights_only=True)["method"] for run in (stopped, whole)
    )
    return ours, theirs
