"""Stage "transfer/<task>": train a detector from the pretrained backbone and measure its average precision.

Resumes automatically from its last checkpoint if interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from softedge import registry
from softedge.config import Recipe
from softedge.data import runs
from softedge.data.images import FileImages
from softedge.data.stamps import content_hashes
from softedge.detection import keeping, planning
from softedge.detection.batches import Batches
from softedge.detection.folder import WEIGHTS
from softedge.detection.inference import detect
from softedge.detection.models import build, without_shared
from softedge.detection.notices import announce, compare_splits
from softedge.detection.planning import TransferPlan
from softedge.detection.scenes import Scenes, fingerprint
from softedge.detection.screening import screen
from softedge.detection.settings import Transfer
from softedge.detection.tasks import USELESS, Task
from softedge.detection.training import CHECKPOINT, DetectorTraining, seconds_per_iteration
from softedge.errors import UserError
from softedge.eval import finetune
from softedge.progress import say
from softedge.records import InputSpec, Outcome, Result
from softedge.run import Run, perform, write_bytes
from softedge.stages.base import INDEX, begun_from, hashes, start_files


def train(
    run: Run, recipe: Recipe, task: str, data_dir: str | Path, init: str | None = None, force: bool = False
) -> Result:
    """Train and score a detector on a VOC or COCO folder.

    init: "ssl", "random", "imagenet" or a weights file; None: that of ``[transfer]``.  The stage is
    ``transfer/<task>`` from the SSL backbone and ``transfer/<task>-<init>`` else, so that they stand side by side.
    Metrics (fractions): AP, AP50, AP75 by COCO's definition, AP_small..., with masks mask_AP...; on VOC also
    voc07_AP, voc07_AP50, voc07_AP75 (11-point) and voc12_AP50 (area). Details: per_class, curve, losses, notices.
    """
    asked: Task = registry.lookup(registry.TASKS, task, "task")
    settings = recipe.plugin(Transfer).model_copy(update={"init": init} if init else {})
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data {data_dir} is not a folder; give the {task.upper()} folder with annotations and images"
        )
    runs.refuse(Path(data_dir))
    data = Path(data_dir).resolve()  # the paths of its pictures are kept: they are read again from wherever one is
    train, test = asked.read(data)
    if settings.init == "ssl":
        run.need("pretrain", "pretrain")
    name = settings.init if settings.init in ("random", "imagenet") else Path(settings.init).stem
    stage = f"transfer/{task}" if settings.init == "ssl" else f"transfer/{task}-{name}"
    contents = _contents(run, task, data, train, test)
    inputs = hashes(run, [INDEX, *start_files([settings.init])]) | {"annotations": fingerprint(train, test)}
    done = run.result(stage) if not force else None
    if done is None or "pictures" in done.inputs:  # an earlier softedge did not look into the pictures
        inputs["pictures"] = keeping.fingerprint((train, test), contents)
    section = settings.model_dump(mode="json", exclude={"workers", "checkpoint_every"})
    return perform(
        run,
        stage,
        lambda folder: _Transfer(run, recipe, asked, settings, data).work(folder, train, test, contents),
        recipe={"transfer": section, "seed": recipe.seed, "backbone": recipe.section("backbone")["backbone"]["name"]},
        inputs=inputs,
        force=force,
        resumable=True,
    )


def _contents(run: Run, task: str, data: Path, train: Scenes, test: Scenes) -> dict[Path, str]:
    """The sha256 of every picture's file."""
    paths = [scene.path for scene in (*train.scenes, *test.scenes)]
    images = FileImages(data, [os.path.relpath(path, data) for path in paths], np.zeros(len(paths), np.int64))
    return dict(zip(paths, content_hashes({"": images}, run.root / f".stamps-{task}.json")[""]))


class _Transfer:
    def __init__(self, run: Run, recipe: Recipe, task: Task, settings: Transfer, data: Path):
        self.run, self.recipe, self.task, self.settings, self.data = run, recipe, task, settings, data
        self.given = settings.iterations > 0

    def work(self, folder: Path, train: Scenes, test: Scenes, contents: Mapping[Path, str]) -> Outcome:
        left_out = screen(train, test, self.data.name)
        self.train, self.test = left_out.apply(train, test)
        notices = [*train.notices, *test.notices, *left_out.notices, *compare_splits(self.train, self.test)]
        announce(notices)
        model, masks, about = self._model()
        plan = self._train(folder, model, masks)
        # Saved before it is scored: whatever happens then, the training is not lost.
        self._save(folder / WEIGHTS, model, {**about, "masks": masks})
        kept = keeping.keep(folder, self.train, self.test, contents, self.recipe.seed)
        scores = self._score(model, masks)
        per_class = scores.pop("AP50_per_class")
        cautions = []
        if scores["AP"] < USELESS:
            cautions.append(
                f"AP {scores['AP']:.3f}: this detector finds nothing; train longer (--set transfer.minutes=...), from "
                "pretrained weights, or look at the boxes of the training pictures"
            )
        for line in cautions:
            say(f"transfer: caution: {line}")
        skipped = {}
        if self.train.masks and not masks:
            skipped["masks"] = "the ssdlite head has none" if plan.head == "ssdlite" else "transfer.masks is off"
        details = {
            "task": self.task.name,
            "data": str(self.data),
            "pictures": kept,  # exporting, checking and timing the detector need them again
            "left_out": {"train": sorted(left_out.train), "test": sorted(left_out.test)},
            "init": self.settings.init,
            "head": plan.head,
            "iterations": plan.iterations,
            "plan": plan.to_dict(),
            "AP50_per_class": per_class,
            "curve": self.training.curve,
            "losses": finetune.thinned(self.training.losses),
            "classes": list(self.test.classes),
            "notices": notices,
            "cautions": cautions,
        }
        counts = {"n_train": len(self.train), "n_test": len(self.test), "iterations": plan.iterations}
        (folder / CHECKPOINT).unlink(missing_ok=True)
        (folder / planning.FILE).unlink(missing_ok=True)
        return Outcome({**scores, **counts}, details, skipped)

    def _model(self) -> tuple[nn.Module, bool, dict[str, Any]]:
        """The network, whether it gives masks, and what ``deployed.load`` must know to build it again."""
        backbone = finetune.initial(self.run, self.recipe, self.settings.init, self.recipe.seed)
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.settings = planning.resolve(self.settings, backbone.settings.name, self.task, self.train, place)
        head: Any = self.settings.head
        masks = self.settings.masks and self.train.masks and self.test.masks and head != "ssdlite"
        spec = self._spec()
        torch.manual_seed(self.recipe.seed)  # heads start alike, whatever the backbone starts from
        sides = self.settings.short_sides
        model = build(backbone, head, len(self.train.classes), masks, self.settings, spec, sides).to(place)
        start = begun_from(self.run, self.recipe, self.settings.init)
        say(
            f"transfer: {self.task.name} with {backbone.settings.name} from {start}, {len(self.train)} "
            f"training and {len(self.test)} test images"
        )
        settings = {**backbone.settings.model_dump(mode="json"), "weights": "random"}
        return model, masks, {"head": head, "spec": spec.to_dict(), "backbone": settings}

    def _train(self, folder: Path, model: nn.Module, masks: bool) -> TransferPlan:
        settings, seed, crop = self.settings, self.recipe.seed, self.settings.head == "ssdlite"
        batches = Batches(self.train, settings.batch, seed, masks=masks, crop=crop, workers=settings.workers)
        plan = TransferPlan.read(folder)
        if plan is None:
            place = next(model.parameters()).device
            plan = TransferPlan.made(settings, seconds_per_iteration(model, batches), place, given=self.given)
            plan.write(folder)
        for line in plan.lines(batches.n_scenes):
            say(f"transfer: {line}")
        self.training = DetectorTraining(
            model, settings, plan.iterations, self.task.milestones, seed, lambda: self._score(model, masks)
        )
        self.training.run(batches, folder)
        return plan

    def _spec(self) -> InputSpec:
        """The normalisation that the backbone was pretrained with."""
        data = self.run.result("data")
        if data is not None and "spec" in data.details:
            return InputSpec.from_dict(data.details["spec"])
        from softedge.config import IMAGENET_MEAN, IMAGENET_STD

        return InputSpec(224, 256, IMAGENET_MEAN, IMAGENET_STD)

    def _score(self, model: nn.Module, masks: bool) -> dict[str, Any]:
        return self.task.score(self.test, detect(model, self.test, "measure"), masks)

    def _save(self, path: Path, model: nn.Module, about: dict[str, Any]) -> None:
        from safetensors.torch import save

        settings = self.settings.model_dump(mode="json")
        values = {"kind": "detector", **about, "classes": list(self.train.classes), "transfer": settings}
        # Written by Python, which says why it cannot: safetensors' own error of a full disk has no number.
        write_bytes(path, save(without_shared(model), metadata={"softedge": json.dumps(values)}))
