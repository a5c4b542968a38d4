"""What the training loop asks of a method, and the network that most of them share."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.draws import View, two_views
from softedge.data.images import Images
from softedge.records import InputSpec
from softedge.ssl.stopwatch import Stopwatch


class Embed(Protocol):
    """What a network makes, (images, C) float32, of all images a method is trained on, or of those at ``chosen``.

    In their order and without augmentation, prepared as ``spec`` says, else as for the network that is trained. Costs a
    pass over the images; all ranks must call it alike, and get the same.
    """

    def __call__(
        self, network: nn.Module, chosen: NDArray[np.int64] | None = None, spec: InputSpec | None = None
    ) -> Tensor: ...


class Method(nn.Module, ABC):
    """A way to pretrain. All of its state is parameters and persistent buffers: ``state_dict()`` is the checkpoint.

    ``Settings`` is the class of its ``[ssl]`` section.  ``uses_labels``: it learns from the images' labels.
    ``clock`` is set by the training loop; a method laps it so that the log can say where a step's time goes.
    ``latest`` holds unit-length embeddings of the last step, (N, C) of one view and of its partner, for the monitor.
    """

    Settings: ClassVar[type[Pretraining]]
    uses_labels: ClassVar[bool] = False
    clock: Stopwatch = Stopwatch()
    latest: tuple[Tensor, Tensor] | None = None

    @classmethod
    @abstractmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        """The method with reproducible weights. images: what it will be trained on (its size, its labels)."""

    @classmethod
    def views(cls, recipe: Recipe, size: int) -> tuple[View, ...]:
        """The views of an image that ``forward`` gets: two made alike, of ``size`` pixels, unless it needs others."""
        return two_views(size, recipe.augment)

    @property
    @abstractmethod
    def backbone(self) -> Backbone:
        """The network that is kept after pretraining."""

    @abstractmethod
    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        """The scalar loss of one (micro-)batch.

        views: normalised float (N, 3, H, W) views of the same images, those it asked for.  index: int64 (N,), which
        images.
        """

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves."""
        return [p for p in self.parameters() if p.requires_grad]

    def networks(self) -> list[nn.Module]:
        """The parts worth compiling."""
        return [self.backbone]

    def shared_state(self) -> list[Tensor]:
        """What must be the same on all ranks; compared after every epoch."""
        return [p.detach() for p in self.parameters()]

    def before_epoch(self, epoch: int, embed: Embed) -> None:
        """Called before the first step of each epoch (0, 1, …), not when a training resumes within one."""

    def after_step(self, progress: float) -> None:
        """Called after each update. progress: the share of training that is done, 0 … 1."""

    def measures(self) -> dict[str, float]:
        """The method's own numbers for the log, e.g. momentum and queue fill.

        ``objective``: a number that changes when the loss becomes another one; the guard then compares anew.
        """
        return {}


class OneEncoder(Method):
    """A method that trains one ``Embedder``, ``encoder``, whose backbone is kept.

    ``build`` makes it of its settings, the backbone and the seed alone; with more to know a method has its own.
    """

    encoder: Embedder

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        return cls(recipe.ssl, backbone, recipe.seed)

    @property
    def backbone(self) -> Backbone:
        return self.encoder.backbone

    def networks(self) -> list[nn.Module]:
        return [self.encoder]


class Embedder(nn.Module):
    """Backbone and projector: (N, 3, H, W) -> (N, C) float32, of unit length unless ``unit`` is False."""

    def __init__(self, backbone: Backbone, widths: Sequence[int], norm: bool, unit: bool = True):
        super().__init__()
        self.backbone = backbone
        self.projector = projector(backbone.num_features, widths, norm)
        self.unit = unit

    def forward(self, images: Tensor) -> Tensor:
        projection = self.projector(self.backbone(images)).float()
        return F.normalize(projection, dim=1) if self.unit else projection


def projector(inputs: int, widths: Sequence[int], norm: bool) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them; ``norm`` puts BatchNorm before each ReLU.

    (2048, 128) is Light-MoCo's (arXiv 2212.07158, section IV.A), (128,) a single linear layer.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers.append(nn.Linear(inputs, width, bias=not norm))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers.append(nn.ReLU(inplace=True))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1]))


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Draw initial weights from ``seed`` and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
