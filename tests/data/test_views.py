"""Views: the pixels of Pillow and torchvision, and a pure function of seed, epoch and step."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import photo, save
from reference_views import view as reference

from softedge.config import Augment
from softedge.data import batch_views, image_views, small_views
from softedge.data.draws import draw, two_views
from softedge.data.images import ArrayImages, FileImages
from softedge.data.views import ViewLoader
from softedge.errors import UserError
from softedge.records import InputSpec

OFF = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
STEPS = {  # settings, tolerance of the tensor operations, of OpenCV's: in levels of 255
    "crop and flip": (OFF, 0.06, 0.3),
    "brightness": ({**OFF, "jitter": 1.0, "contrast": 0, "saturation": 0, "hue": 0}, 0.1, 1.2),
    "contrast": ({**OFF, "jitter": 1.0, "brightness": 0, "saturation": 0, "hue": 0}, 0.1, 1.2),
    "saturation": ({**OFF, "jitter": 1.0, "brightness": 0, "contrast": 0, "hue": 0}, 0.1, 1.2),
    "hue": ({**OFF, "jitter": 1.0, "brightness": 0, "contrast": 0, "saturation": 0}, 0.1, 1.2),
    "all of the jitter": ({**OFF, "jitter": 1.0}, 0.2, 1.2),
    "greyscale": ({**OFF, "grey": 1.0}, 0.06, 0.3),
    "blur": ({**OFF, "blur": 1.0}, 0.6, 0.6),  # Pillow rounds after each of six passes
    "everything": ({}, 0.5, 1.2),
}


def spec(size: int) -> InputSpec:
    return InputSpec(size, size, (0.5,) * 3, (0.5,) * 3)


def arrays(count: int, side: int = 24) -> ArrayImages:
    pixels = np.stack([photo(i, side, side) for i in range(count)])
    return ArrayImages(pixels, np.arange(count), [str(i) for i in range(count)])


def files(folder: Path, count: int, **options: int) -> FileImages:
    names = [save(folder / f"{i:03d}.jpg", i, **options).name for i in range(count)]
    return FileImages(folder, names, np.arange(count))


def means(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in levels of 255."""
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("side", [24, 40])
def test_each_step_has_pillows_pixels(step: str, side: int) -> None:
    """In all three implementations; a crop enlarges from 24 pixels and shrinks or enlarges from 40."""
    settings, tolerance, opencv_tolerance = STEPS[step]
    images, augment = arrays(48, side).array, Augment(**settings)
    draws, _ = draw(0, 0, np.arange(48), two_views(32, augment))
    expected = np.stack([reference(image, draws, row, 32) for row, image in enumerate(images)])
    batched = batch_views.views(batch_views.to_rows(torch.from_numpy(images)), draws, 32)
    assert means(batched.numpy(), expected) < tolerance
    small = small_views.views(images, draws, 32)
    assert means(small, expected) < opencv_tolerance
    crops = [image_views.crop(image, draws, row, 32) for row, image in enumerate(images)]
    single = np.stack([image_views.colour(crop, draws, row) for row, crop in enumerate(crops)])
    assert means(single, expected) < opencv_tolerance


def everything(loader: ViewLoader, epoch: int, start: int = 0) -> list[tuple[torch.Tensor, ...]]:
    return [(*views, index) for views, index in loader.epoch(epoch, start)]


def same(a: list[tuple[torch.Tensor, ...]], b: list[tuple[torch.Tensor, ...]]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for left, right in zip(a, b) for x, y in zip(left, right))


def make(tmp_path: Path, kind: str, batch: int = 8, **options: int) -> ViewLoader:
    images = arrays(26) if kind == "memory" else files(tmp_path, 26, height=70, width=90)
    return ViewLoader(images, two_views(32, Augment()), batch, seed=3, **{"workers": 0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(tmp_path: Path, kind: str) -> None:
    views = make(tmp_path, kind)
    assert views.steps_per_epoch == 3
    shown = [torch.cat([index for _, index in views.epoch(epoch)]).tolist() for epoch in (0, 1)]
    assert all(len(set(order)) == 24 for order in shown) and shown[0] != shown[1]
    for (first, second), index in views.epoch(0):
        assert first.shape == second.shape == (8, 32, 32, 3) and first.dtype == second.dtype == torch.uint8
        assert index.dtype == torch.int64 and not torch.equal(first, second)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_resuming_at_any_step_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = everything(make(tmp_path, kind), 5)
    for start in range(4):
        assert same(everything(make(tmp_path, kind), 5, start), whole[start:])
    assert not same(everything(make(tmp_path, kind), 6), whole)


def test_worker_processes_give_the_same_bits_as_none(tmp_path: Path) -> None:
    alone, helped = make(tmp_path, "files"), make(tmp_path, "files", workers=2)
    for epoch in (0, 1):
        assert same(everything(alone, epoch), everything(helped, epoch))


def test_a_sigterm_for_the_whole_group_leaves_the_workers_at_work_until_the_epoch_ends(tmp_path: Path) -> None:
    """``timeout`` and batch systems send it to every process; the training wants its last step and a checkpoint."""
    expected = everything(make(tmp_path, "files", batch=2), 0)
    batches = iter(make(tmp_path, "files", batch=2, workers=2).epoch(0))
    actual = [next(batches), next(batches)]  # one from each worker: both have started
    workers = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", *(str(worker.pid) for worker in workers)], check=True)
    time.sleep(0.3)
    actual += batches
    assert len(workers) == 2 and same([(*views, index) for views, index in actual], expected)


def test_leaving_an_epoch_early_does_not_disturb_the_next(tmp_path: Path) -> None:
    views = make(tmp_path, "files", workers=1)
    next(iter(views.epoch(0)))
    assert same(everything(views, 1), everything(make(tmp_path, "files"), 1))


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    everything(make(tmp_path, "files", workers=1), 0)
    everything(make(tmp_path, "memory"), 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_two_ranks_of_half_a_batch_show_what_one_rank_shows(tmp_path: Path, kind: str) -> None:
    whole = everything(make(tmp_path, kind, batch=8), 0)
    parts = [everything(make(tmp_path, kind, batch=4, rank=rank, world=2), 0) for rank in (0, 1)]
    joined = [tuple(torch.cat(pair) for pair in zip(*step)) for step in zip(*parts)]
    assert same(joined, whole)


def test_the_last_part_of_a_batch_is_kept_when_asked() -> None:
    views = ViewLoader(arrays(26), two_views(32, Augment()), 8, seed=0, drop_last=False)
    assert [len(index) for _, index in views.epoch(0)] == [8, 8, 8, 2]


def test_fewer_images_than_a_batch_are_refused_with_a_proposal() -> None:
    with pytest.raises(UserError, match=r"26 images are fewer than one batch of 64.*ssl.batch=16"):
        ViewLoader(arrays(26), two_views(32, Augment()), 64, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [True, False])
def test_an_image_that_cannot_be_read_is_replaced_and_listed_once(
    tmp_path: Path, workers: int, cached: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not cached:
        monkeypatch.setattr("softedge.data.views.CACHE_BYTES", 0)
    images = files(tmp_path, 12, height=70, width=90)
    (tmp_path / "005.jpg").write_bytes(b"broken")
    views = ViewLoader(images, two_views(32, Augment()), 4, seed=0, workers=workers)
    for epoch in range(3):
        shown = torch.cat([index for _, index in views.epoch(epoch)]).tolist()
        assert sorted(shown) == sorted([0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11])
    assert list(views.bad) == ["005.jpg"]
    assert capsys.readouterr().err.count("005.jpg") == 1


def test_the_cache_in_memory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = everything(make(tmp_path, "files"), 0)
    monkeypatch.setattr("softedge.data.views.CACHE_BYTES", 0)
    assert same(everything(make(tmp_path, "files"), 0), cached)


def test_small_image_files_of_one_size_are_augmented_in_memory(tmp_path: Path) -> None:
    images = files(tmp_path, 8, height=32, width=32)
    views = ViewLoader(images, two_views(32, Augment()), 4, seed=0)
    assert views.small
    pixels = np.stack([images.decode(i) for i in range(8)])
    memory = ViewLoader(ArrayImages(pixels, images.labels, images.names), two_views(32, Augment()), 4, seed=0)
    assert same(everything(views, 0), everything(memory, 0))


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_augmenting_in_batches_as_on_a_gpu_gives_the_same_views(tmp_path: Path, kind: str) -> None:
    for alone, together in zip(make(tmp_path, kind).epoch(2), make(tmp_path, kind, batched=True).epoch(2)):
        assert torch.equal(alone[1], together[1])
        for side in (0, 1):
            assert means(together[0][side].numpy(), alone[0][side].numpy()) < 1.0
