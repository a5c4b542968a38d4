"""Visual words: the description against a loop over patches, the loss by hand, and a training that stops."""

import math

import numpy as np
import pytest
import torch
from many import build, embed, stopped_and_whole
from small import TinyBackbone, recipe
from torch.nn import functional as F

from softedge import config
from softedge.errors import UserError
from softedge.ssl.visual_words import VisualWords, recognition
from softedge.ssl.vocabulary import Vocabulary, Words, spherical_kmeans


def noise(count: int, side: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def stripes(count: int, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with horizontal (0) or vertical (1) stripes of random period, phase and colour, and which they have."""
    rng, images, kinds = np.random.default_rng(0), [], []
    for index in range(count):
        wave = np.sin(np.arange(side) * rng.uniform(0.8, 1.6) + rng.uniform(0, 6))
        grid = np.broadcast_to(wave[:, None] if index % 2 == 0 else wave[None], (side, side))
        images.append(grid * rng.uniform(0.3, 1, (3, 1, 1)) + 0.05 * rng.standard_normal((3, side, side)))
        kinds.append(index % 2)
    return torch.tensor(np.stack(images), dtype=torch.float32), torch.tensor(kinds)


def by_hand(words: Words, image: torch.Tensor, stride: int, shrunk: int) -> list[float]:
    """The square roots of the mean responses to one image (3, S, S) and its mirror image, patch by patch."""
    patch, grid = words.patch, words.grid
    filters, offset = words.filters.flatten(1).numpy().astype(float), words.offset.numpy()
    totals = []
    for seen in (image.numpy(), image.numpy()[:, :, ::-1]):
        side = seen.shape[1] // shrunk
        seen = seen[:, : side * shrunk, : side * shrunk].reshape(3, side, shrunk, side, shrunk).mean((2, 4))
        places = range(0, seen.shape[1] - patch + 1, stride)
        responses = np.empty((len(places), len(places), 2 * len(filters)))
        for row, top in enumerate(places):
            for column, left in enumerate(places):
                values = seen[:, top : top + patch, left : left + patch].astype(float).ravel()
                values = (values - values.mean()) / math.sqrt(values.var() + 0.003)
                response = filters @ values - offset
                responses[row, column] = np.maximum(0, [*(response - 0.25), *(-response - 0.25)])
        edges = [(math.floor(i * len(places) / grid), math.ceil((i + 1) * len(places) / grid)) for i in range(grid)]
        regions = [responses[a:b, c:d].mean((0, 1)) for a, b in edges for c, d in edges]
        totals.append(np.stack(regions, 1).reshape(2, len(filters), -1))  # sign, word, region
    return np.sqrt(np.mean(totals, 0)).ravel().tolist()


@pytest.mark.parametrize("side", [12, 15])
def test_mean_responses_are_those_of_a_loop_over_patches(side):
    vocabulary = Vocabulary(words=5, patch=4, grid=2, side=side, components=8, scales=2)
    vocabulary.fit(noise(10, side), seed=0)
    image, (whole, half) = noise(1, side, seed=1), vocabulary.scales
    expected = by_hand(whole, image[0], stride=2, shrunk=1) + by_hand(half, image[0], stride=1, shrunk=2)
    assert len(whole.filters) == 5 and len(half.filters) == 2
    assert vocabulary._responses(image)[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_images_of_half_the_size_too_small_for_a_patch_are_left_out():
    for side, count in ((12, 2), (11, 1)):
        assert len(Vocabulary(words=5, patch=6, grid=2, side=side, components=4, scales=2).scales) == count


@pytest.mark.parametrize("whitening", [0.0, 0.5, 0.875, 1.0])
def test_components_have_the_variance_that_whitening_leaves_them(whitening):
    vocabulary = Vocabulary(words=5, patch=4, grid=1, side=12, components=14, scales=2, whitening=whitening)
    images = noise(200) * torch.linspace(0.2, 2, 200).view(-1, 1, 1, 1) + 0.3
    vocabulary.fit(images, seed=0)
    responses = vocabulary._responses(images)
    projected = (responses - responses.mean(0)) @ vocabulary.projection
    standardised = (responses - responses.mean(0)) / (responses.std(0, correction=0) + 1e-3)
    strongest = torch.linalg.svdvals(standardised.double()) / 200**0.5
    assert projected.std(0, correction=0).tolist() == pytest.approx((strongest ** (1 - whitening)).tolist(), rel=1e-2)


def test_descriptions_have_unit_length_and_are_those_of_the_mirror_image():
    vocabulary = Vocabulary(words=8, patch=4, grid=3, side=12, components=6)
    vocabulary.fit(noise(20), seed=0)
    described = vocabulary(noise(5, seed=1))
    assert described.shape == (5, 6)
    assert torch.allclose(described.norm(dim=1), torch.ones(5), atol=1e-5)
    mirrored = Vocabulary(words=8, patch=4, grid=1, side=12, components=6)
    mirrored.fit(noise(20), seed=0)
    assert torch.allclose(mirrored(noise(5, seed=1)), mirrored(noise(5, seed=1).flip(3)), atol=1e-3)


def test_the_nearest_description_belongs_to_an_image_of_the_same_texture():
    images, kinds = stripes(60)
    vocabulary = Vocabulary(words=16, patch=6, grid=2, side=24, components=16)
    vocabulary.fit(images, seed=0)
    described = vocabulary(images)
    nearest = (described @ described.T - 2 * torch.eye(60)).argmax(1)
    assert (kinds[nearest] == kinds).float().mean() > 0.95


def test_larger_images_are_shrunk_by_area():
    vocabulary = Vocabulary(words=5, patch=4, grid=2, side=12, components=4)
    large = noise(6, 24)
    small = large.view(6, 3, 12, 2, 12, 2).mean((3, 5))
    vocabulary.fit(large, seed=0)
    assert torch.allclose(vocabulary(large), vocabulary(small), atol=1e-5)


def test_the_same_seed_finds_the_same_words_and_leaves_the_global_generator_alone():
    first, second = (Vocabulary(words=5, patch=4, grid=2, side=12, components=4) for _ in range(2))
    before = torch.get_rng_state()
    first.fit(noise(10), seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    second.fit(noise(10), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers()))


@pytest.mark.parametrize("images", [torch.zeros(5, 3, 12, 12), torch.full((5, 3, 12, 12), 3.0)], ids=["black", "white"])
def test_images_without_any_contrast_get_finite_descriptions(images):
    vocabulary = Vocabulary(words=5, patch=4, grid=2, side=12, components=4)
    vocabulary.fit(images, seed=0)
    assert vocabulary(images).isfinite().all()


def test_fewer_images_than_components_leave_the_other_components_zero():
    vocabulary = Vocabulary(words=5, patch=4, grid=2, side=12, components=8)
    vocabulary.fit(noise(3), seed=0)
    described = vocabulary(noise(3))
    assert described.isfinite().all() and described.norm(dim=1).allclose(torch.ones(3), atol=1e-5)
    assert (described[:, 3:] == 0).all()


def test_k_means_finds_three_directions_whatever_the_sign_of_their_points():
    generator = torch.Generator().manual_seed(0)
    points = torch.eye(3).repeat(40, 1) * torch.randn(120, 1, generator=generator).sign() * 2
    points = points + 0.05 * torch.randn(points.shape, generator=generator)
    found = spherical_kmeans(points, 3, torch.Generator().manual_seed(2))
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
    assert sorted(found.abs().argmax(1).tolist()) == [0, 1, 2]
    assert (found.abs().amax(1) > 0.99).all()


def test_the_loss_is_the_cross_entropy_of_finding_the_own_image():
    generator = torch.Generator().manual_seed(0)
    said, described = (F.normalize(torch.randn(n, 4, generator=generator), dim=1) for n in (3, 6))
    own, total = [2, 3, 5], 0.0
    for vector, mine in zip(said.tolist(), own):
        powers = [math.exp(sum(a * b for a, b in zip(vector, other)) / 0.2) for other in described.tolist()]
        total -= math.log(powers[mine] / sum(powers))
    ours = recognition(said, described, torch.tensor(own), temperature=0.2)
    assert ours.item() == pytest.approx(total / 3, abs=1e-5)


def test_the_words_are_found_once():
    made, calls = build("visual-words"), []

    def counted(network, chosen=None):
        calls.append(chosen)
        return embed(network, chosen)

    for epoch in range(3):
        made.before_epoch(epoch, counted)
    assert len(calls) == 2
    assert calls[0].tolist() == list(range(16)) and calls[1] is None
    assert made.described.float().norm(dim=1).allclose(torch.ones(16), atol=1e-3)


def test_a_stopped_training_ends_like_a_whole_one(tmp_path, monkeypatch):
    wanted = recipe(ssl__method="visual-words", ssl__words=6, ssl__side=16, ssl__knn_every=0)
    ours, theirs = stopped_and_whole(wanted, tmp_path, monkeypatch)
    assert ours["described"].any()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_image_is_too_few():
    with pytest.raises(UserError, match="one image is too few"):
        VisualWords(VisualWords.Settings(), TinyBackbone(), 32, 1, 0)


@pytest.mark.parametrize("method", ["visual-words", "simco", "simsiam", "light-moco"])
def test_a_projector_without_layers_is_refused(method):
    with pytest.raises(UserError, match="ssl.projector"):
        config.load("small-domain", [f"ssl.method={method}", "ssl.projector=[]"])


@pytest.mark.parametrize("value", ["words=100000", "grid=50", "patch=1"])
def test_descriptions_that_would_not_fit_into_memory_are_refused(value):
    with pytest.raises(UserError, match="ssl." + value.split("=")[0]):
        config.load("visual-words", [f"ssl.{value}"])
