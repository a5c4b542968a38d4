"""A transfer folder's exported detectors on a device: rounds, rules and rows of classifiers, AP in place of top-1.

The pictures are brought to one size, the commonest of them: an app feeds frames of one size, and a mean over sizes
would mean little. Only devices that run ``worker.py``, and browsers, give boxes back.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softedge.bench.base import PRESETS, Device, DeviceError, Measurement, open_devices
from softedge.bench.row import Session
from softedge.config import Recipe
from softedge.data.images import UNLABELLED
from softedge.detection import pictures
from softedge.detection.detections import Detections
from softedge.detection.pictures import Uint8
from softedge.detection.scenes import Scene, Scenes
from softedge.detection.trained import Trained
from softedge.errors import UserError, did_you_mean
from softedge.progress import say
from softedge.records import Artifact, InputSpec, Outcome, Result
from softedge.stages.bench import Benchmark

PICTURES = 100  # at most: a photo takes a megabyte, and the timing needs no more of them
_PADDING = 114  # grey, as YOLO pads
KINDS = ("local", "ssh", "emulated", "browser")


def bench(trained: Trained, devices: Sequence[str], preset: str, force: bool = False) -> list[Result]:
    """One stage ``bench/<file>@<device>`` each, in the transfer folder; DeviceError after all when a device failed."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'{did_you_mean(preset, tuple(PRESETS))}")
    opened = open_devices(devices)
    for device in opened:
        if device.spec.split(":")[0] not in KINDS:
            raise UserError(f"detectors are timed on {', '.join(KINDS)}, not on {device.spec}")
    artifacts = trained.files()
    photos = Photos(trained.test(), artifacts[0].spec)
    results: list[Result] = []
    failures: list[str] = []
    for device in opened:
        try:
            results += _Detectors(trained, device, preset, photos, force).measure(artifacts)
        except DeviceError as error:
            failures.append(str(error))
            say(f"bench: {error}")
    if failures:
        raise DeviceError("; ".join(failures))
    return results


class Photos:
    """Test pictures of one size; the interface of ``stages.bench.Subjects``.

    Pictures of the commonest size come first and go in as the check gives them.  Others are scaled to fit, keep their
    proportions and are padded: a stretched picture shows objects that the detector has never seen.
    """

    def __init__(self, scenes: Scenes, spec: InputSpec):
        sizes = Counter((scene.height, scene.width) for scene in scenes.scenes)
        self.height, self.width = sizes.most_common(1)[0][0]
        alike = sorted(scenes.scenes, key=lambda scene: (scene.height, scene.width) != (self.height, self.width))
        self.scenes = dataclasses.replace(scenes, scenes=tuple(alike[:PICTURES]))
        self.images, self.spec = self, spec
        self.asked = min(PICTURES, len(scenes))
        self.names = [scene.path.name for scene in self.scenes.scenes]
        self.labels: NDArray[np.int64] = np.full(len(self.names), UNLABELLED)
        self.letterboxed = sum((s.height, s.width) != (self.height, self.width) for s in self.scenes.scenes)

    def __len__(self) -> int:
        return len(self.names)

    def _scale(self, scene: Scene) -> float:
        return min(self.height / scene.height, self.width / scene.width)

    def write(self, folder: Path) -> tuple[Path, tuple[Path, ...]]:
        """images.npy, uint8 (N, H, W, 3); no encoded files: decoding a photo is timed with the classifiers."""
        array = np.full((len(self), self.height, self.width, 3), _PADDING, np.uint8)
        for row, scene in zip(array, self.scenes.scenes):
            photo = self._fitted(scene)
            row[: photo.shape[0], : photo.shape[1]] = photo
        np.save(folder / "images.npy", array)
        return folder / "images.npy", ()

    def _fitted(self, scene: Scene) -> Uint8:
        """The picture as large as fits, at the upper left."""
        from PIL import Image

        image, scale = pictures.pixels(scene), self._scale(scene)
        if scale == 1:
            return image
        size = max(1, round(scene.width * scale)), max(1, round(scene.height * scale))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))

    def detections(self, rows: NDArray[np.float32]) -> list[Detections]:
        """The worker's rows (N, 600), scaled back to the size of each picture."""
        answers = []
        for row, scene in zip(rows.reshape(len(rows), -1, 6), self.scenes.scenes):
            row = row[row[:, 5] >= 0]
            boxes = row[:, :4] / np.float32(self._scale(scene))
            answers.append(Detections(boxes, row[:, 4], row[:, 5].astype(np.int64)))
        return answers


class _Detectors(Benchmark):
    def __init__(self, trained: Trained, device: Device, preset: str, photos: Photos, force: bool):
        recipe: Recipe = trained.recipe
        super().__init__(trained.run, recipe, device, preset, photos, force)  # type: ignore[arg-type]
        self.trained, self.photos = trained, photos

    def _row(self, session: Session, artifact: Artifact, measurement: Measurement, folder: Path) -> Outcome:
        outcome = session.row(artifact, measurement, folder)
        outcome.details["picture"] = [self.photos.height, self.photos.width]
        outcome.details["letterboxed"] = self.photos.letterboxed
        if measurement.outputs is not None:
            outcome.skipped.pop("top1", None)
            scores = self.trained.task.score(self.photos.scenes, self.photos.detections(measurement.outputs), False)
            outcome.metrics.update(AP=scores["AP"], AP50=scores["AP50"], n_images=len(self.photos))
        return outcome
