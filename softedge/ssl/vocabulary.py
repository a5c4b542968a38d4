"""Visual words of patches: what an image looks like, described without labels and without a trained network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PATCHES = 100_000  # that the words are found on
_ROUNDS = 10  # of k-means; Coates & Ng 2012 find 10 enough
_FLAT = 0.003  # added to a patch's variance, in units of the normalised pixels: patches without contrast stay small
_NOISE = 0.1  # added to the eigenvalues before whitening; patches have variance 1 by then
_THRESHOLD = 0.25  # of a response
_CHUNK = 64  # images at a time
_PART = 8192  # patches at a time


class Vocabulary(nn.Module):
    """Images as mean responses to visual words, in a grid of regions, reduced to a few decorrelated numbers.

    Words are found among the patches of the image and, at two scales, half as many among those of the image at half
    its size (``Words``). Responses are averaged over the regions of a grid, and over the image and its mirror image;
    their square roots are standardised and projected on the principal components, each divided by its standard
    deviation to the power of ``whitening``.

    All state is buffers; ``fit`` fills them, and until then the descriptions are zero.
    """

    def __init__(
        self,
        words: int,
        patch: int,
        grid: int,
        side: int,
        components: int,
        *,
        scales: int = 1,
        whitening: float = 0.5,
    ):
        """words: K.  patch, side: pixels; images are shrunk to ``side``.  components: D of a description.

        scales: 1 or 2; one where ``side`` halved is smaller than a patch.  whitening: from 0, the components as they
        are, to 1, all of them with the same variance.
        """
        super().__init__()
        self.side, self.whitening = side, whitening
        self.full_size = Words(words, min(patch, side), grid, stride=2, shrunk=1)
        two = scales == 2 and side // 2 >= patch
        self.half_size = Words(max(1, words // 2), patch, grid, stride=1, shrunk=2) if two else None
        features = sum(2 * len(scale.filters) * grid**2 for scale in self.scales)
        self.mean: Tensor
        self.projection: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("projection", torch.zeros(features, components))

    @property
    def scales(self) -> list[Words]:
        return [self.full_size] if self.half_size is None else [self.full_size, self.half_size]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float32 -> (N, D) float32, of unit length."""
        parts = [self._responses(part) for part in images.float().split(_CHUNK)]
        described = [(part - self.mean) @ self.projection for part in parts]
        return F.normalize(torch.cat(described), dim=1)

    @torch.no_grad()
    def fit(self, images: Tensor, seed: int) -> None:
        """Find the words and the components on (N, 3, H, W) normalised float32 images."""
        generator = torch.Generator().manual_seed(seed)
        shrunk = self.shrunk(images.float()).cpu()
        for scale in self.scales:
            scale.fit(shrunk, generator)
        self._reduce(torch.cat([self._responses(part.to(self.mean.device)) for part in shrunk.split(_CHUNK)]), seed)

    def shrunk(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to ``side`` pixels by area, where they are larger."""
        if images.shape[-1] <= self.side:
            return images
        return F.interpolate(images, size=(self.side, self.side), mode="area")

    def _responses(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, features), the square roots of mean responses."""
        images = self.shrunk(images)
        mirrored = images.flip(3)
        return torch.cat([(scale(images) + scale(mirrored)) / 2 for scale in self.scales], 1).sqrt()

    def _reduce(self, responses: Tensor, seed: int) -> None:
        """Principal components of standardised (N, F) responses; fewer than asked where the images are fewer."""
        mean, deviation = responses.mean(0), responses.std(0, correction=0)
        scale = torch.where(deviation > 1e-6, 1 / (deviation + 1e-3), 0)
        count = min(self.projection.shape[1], *responses.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _, singular, components = torch.svd_lowrank(((responses - mean) * scale).cpu(), q=count, niter=2)
        strength = singular / max(len(responses), 1) ** 0.5
        weights = torch.where(strength > 1e-4 * strength.max().clamp(min=1e-12), strength**-self.whitening, 0)
        self.mean.copy_(mean)
        self.projection.zero_()
        self.projection[:, :count] = scale[:, None] * (components * weights).to(self.projection.device)


class Words(nn.Module):
    """Mean responses to K words, patches of pixels of one scale.

    Patches are normalised for brightness and contrast and whitened; the words are directions found by spherical
    k-means (Coates & Ng 2012, "Learning feature representations with k-means"); a response s becomes max(0, s - t) and
    max(0, -s - t) (Coates & Ng 2011, "The importance of encoding versus training with sparse coding and vector
    quantization").
    """

    def __init__(self, words: int, patch: int, grid: int, *, stride: int, shrunk: int):
        """words: K.  patch, stride: pixels of the image shrunk by ``shrunk``.  grid: regions in each direction."""
        super().__init__()
        self.patch, self.grid, self.stride, self.shrunk = patch, grid, min(stride, patch), shrunk
        self.filters: Tensor
        self.offset: Tensor
        self.register_buffer("filters", torch.zeros(words, 3, patch, patch))
        self.register_buffer("offset", torch.zeros(words))

    def fit(self, images: Tensor, generator: torch.Generator) -> None:
        """Find the words among 100,000 patches of (N, 3, H, W) normalised float32 images."""
        patches = _normalised(_patches(self._small(images), self.patch, generator))
        centre = patches.mean(0)
        whitening = _whitening(patches)
        words = spherical_kmeans((patches - centre) @ whitening, len(self.filters), generator)
        filters = whitening @ words.T  # (P, K); a response is ((patch - centre) @ filters) of a normalised patch
        self.offset.copy_(centre @ filters)
        self.filters.copy_((filters - filters.mean(0)).T.view_as(self.filters))  # takes a patch's own mean away

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float32 -> (N, 2 · K · grid²), all >= 0."""
        images = self._small(images)
        mean = F.avg_pool2d(images.mean(1, keepdim=True), self.patch, self.stride)
        square = F.avg_pool2d(images.square().mean(1, keepdim=True), self.patch, self.stride)
        contrast = ((square - mean.square()).clamp(min=0) + _FLAT).rsqrt()
        response = F.conv2d(images, self.filters, stride=self.stride) * contrast - self.offset[:, None, None]
        signed = (response - _THRESHOLD).relu_(), (-response - _THRESHOLD).relu_()
        return torch.cat([F.adaptive_avg_pool2d(part, self.grid).flatten(1) for part in signed], 1)

    def _small(self, images: Tensor) -> Tensor:
        return images if self.shrunk == 1 else F.avg_pool2d(images, self.shrunk)


class ShrunkPixels(nn.Module):
    """(N, 3, H, W) -> (N, 3 · side²): the pixels of images shrunk as ``vocabulary`` sees them."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, images: Tensor) -> Tensor:
        return self.vocabulary.shrunk(images.float()).flatten(1)


def spherical_kmeans(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k directions of unit length, (k, C), for (N, C) points: Coates & Ng 2012, algorithm of section 3.1.

    A point belongs to the direction with the largest |⟨point, direction⟩|, whose sum it enters with that product as
    its weight; a direction that no point chooses stays.
    """
    start = torch.randperm(len(points), generator=generator)[torch.arange(k) % len(points)]
    directions = F.normalize(points[start], dim=1)
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(directions)
        for part in points.split(_PART):
            products = part @ directions.T
            own = products.abs().argmax(1)
            sums.index_add_(0, own, part * products.gather(1, own[:, None]))
        length = sums.norm(dim=1, keepdim=True)
        directions = torch.where(length > 1e-6, sums / length.clamp(min=1e-6), directions)
    return directions


def _patches(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """(P, 3 · side²) patches from random places of random images."""
    high, wide = images.shape[2] - side + 1, images.shape[3] - side + 1
    which = torch.randint(len(images), (_PATCHES,), generator=generator)
    top = torch.randint(high, (_PATCHES,), generator=generator)
    left = torch.randint(wide, (_PATCHES,), generator=generator)
    across = torch.arange(side)
    rows, columns = top[:, None, None] + across[:, None], left[:, None, None] + across
    return images.permute(0, 2, 3, 1)[which[:, None, None], rows, columns].permute(0, 3, 1, 2).flatten(1)


def _normalised(patches: Tensor) -> Tensor:
    centred = patches - patches.mean(1, keepdim=True)
    return centred * (centred.square().mean(1, keepdim=True) + _FLAT).rsqrt()


def _whitening(patches: Tensor) -> Tensor:
    """ZCA of (P, C) patches, (C, C)."""
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    return (vectors * (values.clamp(min=0) + _NOISE).rsqrt()) @ vectors.T
