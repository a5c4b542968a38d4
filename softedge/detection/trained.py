"""A transfer folder (RUN/transfer/voc) opened: the detector, and the pictures it was trained and measured on.

The transfer folder is a run of its own: ``export/<target>-<precision>``, ``check`` and ``bench/<file>@<device>`` lie in
it, and the settings are those of the run around it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from softedge import registry
from softedge.config import Recipe
from softedge.detection import contract, deployed, keeping, pictures
from softedge.detection.folder import WEIGHTS, around
from softedge.detection.format import Uint8
from softedge.detection.scenes import Scenes, fingerprint
from softedge.detection.screening import LeftOut
from softedge.detection.tasks import Task
from softedge.errors import UserError, quoted
from softedge.records import Artifact
from softedge.run import Run, sha256_of


class Trained:
    """A transfer stage as it lies on disk: its network, the data it was trained and measured on."""

    def __init__(self, folder: str | Path, recipe: Recipe):
        self.run, self.recipe = Run(folder), recipe
        self.stage = Path(folder).resolve().relative_to(around(folder)).as_posix()
        result = Run(around(folder)).result(self.stage)
        if result is None or "data" not in result.details:
            raise UserError(
                f"{folder} does not say which pictures it was trained on (unfinished, or of an earlier softedge); "
                "run softedge transfer again with --force"
            )
        self.result = result
        self.task: Task = registry.lookup(registry.TASKS, result.details["task"], "task")

    @functools.cached_property
    def scenes(self) -> tuple[Scenes, Scenes]:
        """(training pictures to calibrate with, test pictures), refused when they are not those of the training."""
        if "pictures" in self.result.details:
            return keeping.read(self.run.root, self.result.details["pictures"]["sha256"])
        train, test = self._looked_up()
        order = np.random.default_rng(self.recipe.seed).permutation(len(train))[: keeping.CALIBRATION]
        return replace(train, scenes=tuple(train.scenes[index] for index in order)), test

    def _looked_up(self) -> tuple[Scenes, Scenes]:
        """(train, test) where they were; an earlier softedge kept none of them."""
        data = Path(self.result.details["data"])
        if not data.is_dir():
            raise UserError(f"the images of {self.run.root} were in {data}, which does not exist; restore them")
        train, test = self.task.read(data)
        if fingerprint(train, test) != self.result.inputs["annotations"]:
            raise UserError(f"{data} was changed since {self.run.root} was trained; run softedge transfer again")
        # Not decoded again: what was left out of the training is still left out.
        listed = self.result.details.get("left_out", {})
        return LeftOut(frozenset(listed.get("train", ())), frozenset(listed.get("test", ()))).apply(train, test)

    @functools.cached_property
    def detector(self) -> deployed.DeployedDetector:
        self.weights()
        return deployed.load(self.run.root)

    def weights(self) -> str:
        """sha256 of the network; UserError when it is no longer the one that was trained."""
        return sha256_of(Run(around(self.run.root)), f"{self.stage}/{WEIGHTS}")

    def calibration(self) -> Iterator[Uint8]:
        """Some training pictures, decoded one by one."""
        for scene in self.scenes[0].scenes[: self.recipe.export.calibration_images]:
            yield pictures.pixels(scene)

    def test(self) -> Scenes:
        """At most ``check.images`` test pictures, by seed."""
        test = self.scenes[1]
        order = np.random.default_rng(self.recipe.seed).permutation(len(test))[: self.recipe.check.images]
        return replace(test, scenes=tuple(test.scenes[index] for index in np.sort(order)))

    def inputs(self) -> dict[str, str]:
        return {
            WEIGHTS: self.weights(),
            "annotations": self.result.inputs["annotations"],
        }

    def files(self) -> list[Artifact]:
        """The exported files; UserError when there is none."""
        folders = sorted(path.parent for path in self.run.folder("export").glob(f"*/{contract.FILE}"))
        if not folders:
            raise UserError(f"{self.run.root} has no exported files yet; run: softedge export {quoted(self.run.root)}")
        return [contract.read(folder) for folder in folders]
