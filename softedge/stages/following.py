"""Whether the network that ``softedge distill`` trains follows its teacher, where labels are too few to validate it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softedge import backbones
from softedge.eval import linear
from softedge.eval.bootstrap import paired
from softedge.eval.features import extract
from softedge.run import Run
from softedge.stages.base import BACKBONE
from softedge.stages.teachers import Parts, Taught

_DECAY = 1e-2  # of the linear layer that the student is compared with, not searched


@dataclass(frozen=True)
class Followed:
    """How often the student, and a linear layer on the labels alone, answer as the teacher, on images held out.

    The linear layer, on the run's own features, is what would be deployed instead (the probe).  On the teacher's it
    would be a part of the teacher.  A student that has learnt to do better than its teacher departs from it, too: only
    one that stays clearly below the linear layer (95 % interval) was trained too little.
    """

    student: float
    linear: float
    clearly_below: bool


def follows(
    taught: Taught, parts: Parts, student: NDArray[np.int64], plain: NDArray[np.int64], seed: int
) -> Followed | None:
    """student, plain: answers (M,) of the student and of the linear layer for the unseen images.

    None where the teacher has not answered for them.
    """
    if taught.answers is None or not len(parts.unseen):
        return None
    wanted = taught.answers[parts.unseen]
    difference = paired(student == wanted, plain == wanted, seed)
    return Followed(float((student == wanted).mean()), float((plain == wanted).mean()), difference.high < 0)


def plainly(run: Run, parts: Parts, seed: int) -> NDArray[np.int64]:
    """Answers (M,) of a linear layer on the run's frozen features, learnt from the labels, for the unseen images."""
    backbone, images = backbones.load(run.root / BACKBONE), parts.data.pretrain
    rows = np.flatnonzero(parts.labels >= 0)
    own, unseen = (extract(backbone, images.subset(some), parts.data.spec) for some in (rows, parts.unseen))
    return linear.fit(own, parts.labels[rows], len(parts.data.classes), (_DECAY,), seed)(unseen).argmax(1)
