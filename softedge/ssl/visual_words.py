"""Visual words: a network learns to say of a view which visual words its image is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from softedge import distributed
from softedge.backbones import Backbone
from softedge.config import Pretraining, Recipe
from softedge.data.draws import View
from softedge.data.images import Images
from softedge.errors import UserError
from softedge.recipes.section import Fraction, Widths
from softedge.ssl.method import Embed, Embedder, OneEncoder, reproducible
from softedge.ssl.vocabulary import ShrunkPixels, Vocabulary

_FITTED_ON = 5000  # images at most


def recognition(prediction: Tensor, described: Tensor, own: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE between what a network says of views and the descriptions of the images of the batch.

        L = -1/N Σ_i log( exp(p_i · d_i / τ) / Σ_j exp(p_i · d_j / τ) )

    prediction: (N, D) and described: (M, D), unit length, gradient through prediction only.  own: int64 (N,), the row
    of ``described`` that belongs to each prediction.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return F.cross_entropy(prediction.float() @ described.detach().float().T / temperature, own)


class VisualWords(OneEncoder):
    """Predicting bags of visual words: Gidaris et al. 2020, https://arxiv.org/abs/2002.12247.

    A network sees an augmented view and predicts a description of the image as it is. Theirs counts words among the
    features of a network that was pretrained before, and the loss is the cross-entropy of those counts; here the
    words are patches of pixels (``Vocabulary``), found within seconds, and the loss asks which image of the batch (of
    all ranks) the view comes from. One view, one encoder, targets that stand still: it learns from the first step.
    """

    class Settings(Pretraining):
        method: Literal["visual-words"] = "visual-words"
        projector: Widths = (512,)  # the last is the width of a description, too
        words: int = Field(default=400, ge=1, le=2000)
        patch: int = Field(default=6, ge=2)  # pixels, of a word
        grid: int = Field(default=3, ge=1, le=6)  # regions in each direction
        scales: int = Field(default=1, ge=1, le=2)  # 2: half as many words of the images at half their size besides
        side: int = Field(default=48, ge=4)  # pixels that images are shrunk to for their descriptions
        whitening: Fraction = 0.5  # of the descriptions: 0 none, 1 full
        temperature: float = Field(default=0.1, gt=0.0)

    def __init__(self, settings: Settings, backbone: Backbone, size: int, images: int, seed: int):
        """size: pixels of the images.  images: how many there are."""
        super().__init__()
        if images < 2:
            raise UserError("ssl.method = visual-words tells images apart: one image is too few")
        self.settings, self.seed = settings, seed
        side, width = min(settings.side, size), settings.projector[-1]
        with reproducible(seed + 1):
            self.encoder = Embedder(backbone, settings.projector, settings.projector_norm)
        self.vocabulary = Vocabulary(
            settings.words,
            settings.patch,
            settings.grid,
            side,
            width,
            scales=settings.scales,
            whitening=settings.whitening,
        )
        self.described: Tensor
        self.register_buffer("described", torch.zeros(images, width, dtype=torch.float16))
        self._ready = False

    @classmethod
    def build(cls, recipe: Recipe, backbone: Backbone, images: Images) -> Self:
        settings = recipe.ssl
        assert isinstance(settings, cls.Settings)
        return cls(settings, backbone, recipe.data.size, len(images), recipe.seed)

    @classmethod
    def views(cls, recipe: Recipe, size: int) -> tuple[View, ...]:
        return (View(size, recipe.augment),)

    def shared_state(self) -> list[Tensor]:
        return [*super().shared_state(), self.described]

    def before_epoch(self, epoch: int, embed: Embed) -> None:
        """Find the words and describe all images, once."""
        if self._ready:
            return
        count = len(self.described)
        some = np.linspace(0, count - 1, min(count, _FITTED_ON)).round().astype(np.int64)
        pixels = embed(ShrunkPixels(self.vocabulary), some)
        self.vocabulary.fit(pixels.view(len(some), 3, *[round((pixels.shape[1] / 3) ** 0.5)] * 2), self.seed)
        for buffer in self.vocabulary.buffers():
            buffer.copy_(distributed.of_first_rank(buffer))
        self.described.copy_(embed(self.vocabulary))
        self._ready = True

    def forward(self, views: Sequence[Tensor], index: Tensor) -> Tensor:
        predicted = self.encoder(views[0])
        self.clock.lap("queries")
        own = F.normalize(self.described[index.to(self.described.device)].float())  # float16 is not exact
        row = distributed.rank() * len(own) + torch.arange(len(own), device=own.device)
        loss = recognition(predicted, distributed.gather(own), row, temperature=self.settings.temperature)
        self.latest = predicted.detach(), own
        self.clock.lap("loss")
        return loss

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = bool(self.described.any())
