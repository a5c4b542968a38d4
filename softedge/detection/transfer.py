"""Stage "transfer/<task>": train a detector from the pretrained backbone and measure its average precision.

Resumes automatically from its last checkpoint if interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softedge import config, registry
from softedge.config import Recipe
from softedge.detection.batches import Batches
from softedge.detection.folder import WEIGHTS
from softedge.detection.inference import detect
from softedge.detection.models import Head, build, without_shared
from softedge.detection.notices import compare_splits, tell
from softedge.detection.scenes import Scenes, fingerprint
from softedge.detection.settings import Transfer
from softedge.detection.tasks import Task
from softedge.detection.training import CHECKPOINT, Training
from softedge.errors import UserError
from softedge.eval import finetune
from softedge.progress import say
from softedge.records import InputSpec, Outcome, Result
from softedge.run import Run, atomic_path, perform


def transfer(
    run: str | Path,
    task: str,
    data: str | Path,
    init: str | None = None,
    set: Sequence[str] = (),
    force: bool = False,
    recipe: str | None = None,
) -> Result:
    """Train a detector (and masks on COCO) on the backbone and measure average precision.

    recipe: one whose [transfer] section stands in place of the run's (transfer-voc-c4); ``set`` still wins.
    """
    from softedge.stages.pipeline import reopen, with_overrides

    opened, resolved = reopen(run)
    if recipe is not None:
        resolved = resolved.model_copy(update={"transfer": config.load(recipe).transfer})
    resolved = with_overrides(opened, resolved, set)
    with opened.locked():
        return train(opened, resolved, task, data, init=init, force=force)


def train(
    run: Run, recipe: Recipe, task: str, data_dir: str | Path, init: str | None = None, force: bool = False
) -> Result:
    """Train and score a detector on a VOC or COCO folder.

    init: "ssl", "random", "imagenet" or a weights file; None: ``recipe.transfer.init``.  The stage is
    ``transfer/<task>`` from the SSL backbone and ``transfer/<task>-<init>`` else, so that they stand side by side.
    Metrics (fractions): AP, AP50, AP75 by COCO's definition, AP_small..., with masks mask_AP...; on VOC also
    voc07_AP, voc07_AP50, voc07_AP75 (11-point) and voc12_AP50 (area). Details: per_class, curve, losses, notices.
    """
    asked: Task = registry.load(registry.TASKS, task, "task")
    values = recipe.section("transfer")["transfer"] | ({"init": init} if init else {})
    settings = Transfer.model_validate(values)
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data {data_dir} is not a folder; give the {task.upper()} folder with annotations and images"
        )
    train, test = asked.read(Path(data_dir))
    inputs = finetune.inputs(run, [settings.init]) | {"annotations": fingerprint(train, test)}
    name = settings.init if settings.init in ("random", "imagenet") else Path(settings.init).stem
    stage = f"transfer/{task}" if settings.init == "ssl" else f"transfer/{task}-{name}"
    section = settings.model_dump(mode="json", exclude={"workers", "checkpoint_every"})
    return perform(
        run,
        stage,
        lambda folder: _Transfer(run, recipe, asked, settings, train, test, Path(data_dir)).work(folder),
        recipe={"transfer": section, "seed": recipe.seed, "backbone": recipe.section("backbone")["backbone"]["name"]},
        inputs=inputs,
        force=force,
        resumable=True,
    )


class _Transfer:
    def __init__(
        self, run: Run, recipe: Recipe, task: Task, settings: Transfer, train: Scenes, test: Scenes, data: Path
    ):
        self.run, self.recipe, self.task, self.settings = run, recipe, task, settings
        self.train, self.test, self.data = train, test, data
        self.iterations = settings.iterations or task.iterations

    def work(self, folder: Path) -> Outcome:
        notices = [*self.train.notices, *self.test.notices, *compare_splits(self.train, self.test)]
        tell(notices)
        model, head, masks, spec, backbone = self._model()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        training = Training(
            model,
            self.settings,
            self.iterations,
            self.task.milestones,
            self.recipe.seed,
            lambda: self._score(model, masks),
        )
        crop, workers = head == "ssdlite", self.settings.workers
        batches = Batches(self.train, self.settings.batch, self.recipe.seed, masks=masks, crop=crop, workers=workers)
        training.run(batches, folder)
        scores = self._score(model, masks)
        per_class = scores.pop("AP50_per_class")
        about = {"head": head, "masks": masks, "spec": spec.to_dict(), "backbone": backbone}
        self._save(folder / WEIGHTS, model, about)
        skipped = {}
        if self.train.masks and not masks:
            skipped["masks"] = "the ssdlite head has none" if head == "ssdlite" else "transfer.masks is off"
        details = {
            "task": self.task.name,
            "data": str(self.data.resolve()),  # exporting, checking and timing the detector need the pictures again
            "init": self.settings.init,
            "head": head,
            "iterations": self.iterations,
            "AP50_per_class": per_class,
            "curve": training.curve,
            "losses": finetune.thinned(training.losses),
            "classes": list(self.test.classes),
            "notices": notices,
        }
        counts = {"n_train": len(self.train), "n_test": len(self.test), "iterations": self.iterations}
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return Outcome({**scores, **counts}, details, skipped)

    def _model(self) -> tuple[nn.Module, Head, bool, InputSpec, dict[str, Any]]:
        backbone = finetune.initial(self.run, self.recipe, self.settings.init, self.recipe.seed)
        head: Head = "c4" if backbone.settings.name.startswith("resnet") else "fpn"
        if self.settings.head != "auto":
            head = self.settings.head
        masks = self.settings.masks and self.train.masks and self.test.masks and head != "ssdlite"
        spec = self._spec()
        sides = self.settings.short_sides or ((320,) if head == "ssdlite" else self.task.short_sides)
        torch.manual_seed(self.recipe.seed)  # heads start alike, whatever the backbone starts from
        model = build(backbone, head, len(self.train.classes), masks, self.settings, spec, sides)
        say(
            f"transfer: {self.task.name} with {backbone.settings.name} and {head} from {self.settings.init}, "
            f"{len(self.train)} training and {len(self.test)} test images, {self.iterations} iterations"
        )
        settings = {**backbone.settings.model_dump(mode="json"), "weights": "random"}
        return model, head, masks, spec, settings

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
        """Weights and everything that ``deployed.load`` needs to rebuild the network."""
        from safetensors.torch import save_file

        sides = self.settings.short_sides or ((320,) if about["head"] == "ssdlite" else self.task.short_sides)
        values = {
            "kind": "detector",
            **about,
            "classes": list(self.train.classes),
            "transfer": {**self.settings.model_dump(mode="json"), "short_sides": list(sides)},
        }
        with atomic_path(path) as temporary:
            save_file(without_shared(model), temporary, metadata={"softedge": json.dumps(values)})
