"""Stage "transfer/<task>": train a detector from the pretrained backbone and measure its average precision.

The schedule is MoCo's on Detectron2 (He et al. 2020, arXiv 1911.05722, appendix): SGD at 0.02 for 16 images, linear
warm-up, tenfold falls at fixed iterations, every layer trained. A killed stage goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from softedge import registry
from softedge.config import Recipe
from softedge.detection.batches import Batches, detect
from softedge.detection.models import Head, build, parameter_groups, without_shared
from softedge.detection.objects import Scenes, compare_splits, tell
from softedge.detection.settings import Transfer
from softedge.detection.tasks import Task
from softedge.errors import UserError
from softedge.eval import finetune
from softedge.progress import say, track
from softedge.records import InputSpec, Outcome, Result
from softedge.run import Run, atomic_path, perform
from softedge.stages.base import INDEX, hashes, start_files


def transfer(
    run: Run, recipe: Recipe, task: str, data_dir: str | Path, init: str | None = None, force: bool = False
) -> Result:
    """Train and score a detector on a VOC or COCO folder.

    init: "ssl", "random", "imagenet" or a weights file; None: that of ``[transfer]``.  The stage is
    ``transfer/<task>`` from the SSL backbone and ``transfer/<task>-<init>`` else, so that they stand side by side.
    Metrics (fractions): AP, AP50, AP75 by COCO's definition, AP_small..., with masks mask_AP...; on VOC also
    voc07_AP, voc07_AP50, voc07_AP75 (11-point) and voc12_AP50 (area). Details: per_class, curve, losses, notices.
    """
    asked: Task = registry.load(registry.TASKS, task, "task")
    settings = recipe.plugin(Transfer).model_copy(update={"init": init} if init else {})
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data {data_dir} is not a folder; give the {task.upper()} folder with annotations and images"
        )
    train, test = asked.read(Path(data_dir))
    if settings.init == "ssl":
        run.need("pretrain", "pretrain")
    inputs = hashes(run, [INDEX, *start_files([settings.init])]) | {"annotations": fingerprint(train, test)}
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


def fingerprint(*splits: Scenes) -> str:
    """A hash of the names and annotations of all scenes."""
    digest = hashlib.sha256()
    for scenes in splits:
        digest.update(repr((scenes.classes, len(scenes), scenes.masks)).encode())
        for scene in scenes.scenes:
            digest.update(repr((scene.path.name, scene.width, scene.height)).encode())
            for array in (scene.boxes, scene.labels, scene.crowd, scene.difficult):
                digest.update(array.tobytes())
    return digest.hexdigest()


def rate(iteration: int, iterations: int, warmup: int, milestones: tuple[float, float]) -> float:
    """In units of the full rate: linear from 1/1000 over the warm-up, a tenth after each milestone."""
    falls = sum(iteration >= fraction * iterations for fraction in milestones)
    rise = 1.0 if iteration >= warmup else 0.001 + 0.999 * iteration / warmup
    return rise * 0.1**falls


class _Transfer:
    def __init__(
        self, run: Run, recipe: Recipe, task: Task, settings: Transfer, train: Scenes, test: Scenes, data: Path
    ):
        self.run, self.recipe, self.task, self.settings = run, recipe, task, settings
        self.train, self.test, self.data = train, test, data
        self.iterations = settings.iterations or task.iterations
        self.curve: list[dict[str, float]] = []
        self.losses: list[float] = []

    def work(self, folder: Path) -> Outcome:
        notices = [*self.train.notices, *self.test.notices, *compare_splits(self.train, self.test)]
        tell(notices)
        model, head, masks, spec, backbone = self._model()
        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model.to(place)
        self._train(model, folder, masks, crop=head == "ssdlite", place=place)
        scores = self._score(model, masks)
        per_class = scores.pop("AP50_per_class")
        about = {"head": head, "masks": masks, "spec": spec.to_dict(), "backbone": backbone}
        self._save(folder / "detector.safetensors", model, about)
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
            "curve": self.curve,
            "losses": finetune.thinned(self.losses),
            "classes": list(self.test.classes),
            "notices": notices,
        }
        counts = {"n_train": len(self.train), "n_test": len(self.test), "iterations": self.iterations}
        (folder / "last.pt").unlink(missing_ok=True)
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

    def _train(self, model: nn.Module, folder: Path, masks: bool, crop: bool, place: torch.device) -> None:
        settings, seed = self.settings, self.recipe.seed
        groups = parameter_groups(model, settings.weight_decay)
        optimizer = torch.optim.SGD(groups, settings.lr, momentum=settings.momentum)
        batches = Batches(self.train, settings.batch, seed, masks=masks, crop=crop, workers=settings.workers)
        start = self._resume(folder / "last.pt", model, optimizer)
        model.train()
        stream = batches.from_iteration(start, self.iterations)
        for iteration, (images, targets) in enumerate(track(stream, "transfer", self.iterations - start), start=start):
            torch.manual_seed(hash((seed, iteration)) % (1 << 32))  # scales and sampled regions, also after a resume
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * rate(iteration, self.iterations, settings.warmup, self.task.milestones)
            loss = self._loss(model, images, targets, place)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            self.losses.append(loss.item())
            if not math.isfinite(self.losses[-1]):
                raise UserError(
                    f"the detection loss is {self.losses[-1]} at iteration {iteration}; lower it with --set "
                    f"transfer.lr={settings.lr / 4:g}, or --set transfer.clip_norm=10"
                )
            done = iteration + 1
            if settings.evaluate_every and done % settings.evaluate_every == 0 and done < self.iterations:
                scores = self._score(model, masks)
                self.curve.append({"iteration": done, **{k: scores[k] for k in ("AP", "AP50") if k in scores}})
                say(f"transfer: iteration {done}, loss {np.mean(self.losses[-50:]):.3f}, AP50 {scores['AP50']:.3f}")
            if done % settings.checkpoint_every == 0 and done < self.iterations:
                self._checkpoint(folder / "last.pt", model, optimizer, done)

    def _loss(self, model: nn.Module, images: Any, targets: Any, place: torch.device) -> torch.Tensor:
        images = [image.to(place) for image in images]
        targets = [{k: v.to(place) for k, v in target.items()} for target in targets]
        return torch.stack(list(model(images, targets).values())).sum()

    def _score(self, model: nn.Module, masks: bool) -> dict[str, Any]:
        return self.task.score(self.test, detect(model, self.test, "measure"), masks)

    def _checkpoint(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": done}
        with atomic_path(path) as temporary:
            torch.save({**state, "losses": self.losses, "curve": self.curve}, temporary)

    def _resume(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        if not path.is_file():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        self.losses, self.curve = list(state["losses"]), list(state["curve"])
        say(f"transfer: going on from iteration {state['iteration']}")
        return int(state["iteration"])

    def _save(self, path: Path, model: nn.Module, about: dict[str, Any]) -> None:
        """Weights and everything that ``export.detector.load`` needs to rebuild the network."""
        import json

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
