"""Label efficiency: was pretraining worth it? Accuracy at 1%, 10% and 100% of the labels, with it and without it.

Every start (random, SSL, starting weights) sees the same draws of labels. ``result.details`` holds, for the report:

    rows         one per (init, method, file, fraction): {init, method, file, fraction, n_labels, top1: one per seed,
                 mean, low, high}; file is "pytorch" or the exported file ("onnx-int8"); low..high is the 95% interval
    comparisons  each row against the random start: {..., gain, low, high, judgement: helped | hurt | not shown}
    verdict      {answer: yes | partly | no | not shown, headline, sentences}: computed, also when the answer is no
    scope        what the intervals cover

Every measured cell is kept in ``labels/cells``; an interrupted stage resumes from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softedge.backbones import Backbone, Classifier
from softedge.config import Recipe
from softedge.data.images import Data, Uint8
from softedge.errors import UserError
from softedge.eval import finetune, linear
from softedge.eval.bootstrap import bits, from_bits
from softedge.eval.features import extract
from softedge.eval.knn import top1
from softedge.eval.labels_verdict import comparisons, mean_and_interval, verdict
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.files import temporary_folder
from softedge.progress import say
from softedge.records import Outcome
from softedge.run import Run, read_json, write_json

SCOPE = (
    "intervals of the gains cover the draw of the labels, the training seed, the choice of the test images and, for "
    "random starts, the initial weights; those of single rows leave out the test images"
)


@dataclass(frozen=True)
class Cell:
    """One training: its start, method, fraction of the labels and seed."""

    init: str
    method: str
    fraction: float
    seed: int

    @property
    def file(self) -> str:
        return f"{name_of(self.init)}-{self.method}-{self.fraction:g}-{self.seed}.json"


def name_of(init: str) -> str:
    """A short name for a start: a weights file is called by its stem."""
    return init if init in ("random", "ssl", "imagenet") else Path(init).stem


def _cells(recipe: Recipe, inits: list[str]) -> Iterator[Cell]:
    for seed in range(recipe.labels.seeds):
        for init in inits:
            for fraction in recipe.labels.fractions:
                for method in recipe.labels.methods:
                    yield Cell(init, method, fraction, seed)


def measure(run: Run, recipe: Recipe, data: Data, inits: list[str], folder: Path) -> Outcome:
    """Train and measure every cell that ``folder`` does not hold yet, and judge.

    Metrics: ``{init}_{method}_top1_{fraction}`` (means of the seeds), the same with ``{target}_int8_`` in front for the
    exported file, ``n_test``, ``seeds``.
    """
    cells = list(_cells(recipe, inits))
    bench = _Bench(run, recipe, data)
    measured: dict[Cell, dict[str, Any]] = {}
    for number, cell in enumerate(cells, start=1):
        path = folder / "cells" / cell.file
        if not path.exists():
            write_json(path, bench.measure(cell))
        measured[cell] = read_json(path)
        shown = ", ".join(f"{file} {100 * value:.1f} %" for file, value in measured[cell]["top1"].items())
        say(
            f"labels {number}/{len(cells)}: {name_of(cell.init)} {cell.method}, {100 * cell.fraction:g} % "
            f"({measured[cell]['n_labels']} images), seed {cell.seed}: {shown}"
        )
    rows = _rows(measured, recipe)
    metrics: dict[str, Any] = {"n_test": len(data.test), "seeds": recipe.labels.seeds}
    for row in rows:
        prefix = "" if row["file"] == "pytorch" else row["file"].replace("-", "_") + "_"
        metrics[f"{prefix}{row['init']}_{row['method']}_top1_{row['fraction']:g}"] = row["mean"]
    rights = _rights(measured, recipe)
    judged = verdict(rows, rights)
    say(f"labels: {judged['headline']}")
    details = {"rows": rows, "comparisons": comparisons(rows, rights), "verdict": judged, "scope": SCOPE}
    skipped = {reason: why for cell in measured.values() for reason, why in cell.get("skipped", {}).items()}
    if not recipe.labels.int8:
        skipped["int8"] = "labels.int8 is off"
    return Outcome(metrics, details, skipped)


def _rows(measured: dict[Cell, dict[str, Any]], recipe: Recipe) -> list[dict[str, Any]]:
    rows = []
    first = [cell for cell in measured if cell.seed == 0]
    for cell in first:
        for file in measured[cell]["top1"]:
            seeds = [measured[Cell(cell.init, cell.method, cell.fraction, s)] for s in range(recipe.labels.seeds)]
            values = [s["top1"][file] for s in seeds if file in s["top1"]]
            if len(values) < recipe.labels.seeds:
                continue
            mean = mean_and_interval(values)
            rows.append(
                {
                    "init": name_of(cell.init),
                    "method": cell.method,
                    "file": file,
                    "fraction": cell.fraction,
                    "n_labels": measured[cell]["n_labels"],
                    "top1": values,
                    "mean": mean.mean,
                    "low": max(0.0, mean.low),
                    "high": min(1.0, mean.high),
                }
            )
    return sorted(rows, key=lambda r: (r["file"] != "pytorch", r["file"], r["fraction"], r["method"], r["init"]))


def _rights(measured: dict[Cell, dict[str, Any]], recipe: Recipe) -> dict[tuple[str, str, str, float], list[Any]]:
    """Which test images were right, one array a seed; cells of an earlier version do not say it."""
    rights = {}
    for cell in (cell for cell in measured if cell.seed == 0):
        cells = [measured[Cell(cell.init, cell.method, cell.fraction, s)] for s in range(recipe.labels.seeds)]
        for file in measured[cell]["top1"]:
            if all(file in one.get("right", {}) for one in cells):
                key = name_of(cell.init), cell.method, file, cell.fraction
                rights[key] = [from_bits(one["right"][file]) for one in cells]
    return rights


class _Bench:
    """Trains and measures cells; keeps the prepared images and the features of the last start."""

    def __init__(self, run: Run, recipe: Recipe, data: Data):
        self.run, self.recipe, self.data = run, recipe, data
        self._arrays: tuple[Uint8, Uint8] | None = None
        self._features: tuple[tuple[str, int], Any] | None = None

    @property
    def arrays(self) -> tuple[Uint8, Uint8]:
        if self._arrays is None:
            self._arrays = self.data.train.prepared(self.data.spec), self.data.test.prepared(self.data.spec)
        return self._arrays

    def measure(self, cell: Cell) -> dict[str, Any]:
        """{n_labels, top1: {file: accuracy}, right: {file: a 1 for every image answered correctly, else 0}, skipped}"""
        rng = np.random.default_rng([self.recipe.seed, cell.seed])
        keep = linear.pick_fraction(self.data.train.labels, cell.fraction, rng)
        train_it = self._probe if cell.method == "probe" else self._finetune
        classifier = train_it(cell, keep)
        truth = self.data.test.labels
        outputs = {"pytorch": extract(classifier, self.arrays[1], self.data.spec)}
        skipped: dict[str, str] = {}
        if target := self.recipe.labels.int8:
            try:
                outputs[f"{target}-int8"] = self._int8(cell, classifier, target)
            except Exception as error:  # converters raise every kind; one cell must not end a stage of hours
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                skipped[f"{target}-int8 {cell.file.removesuffix('.json')}"] = reason
        accuracy = {file: top1(answers, truth) for file, answers in outputs.items()}
        right = {file: bits(answers.argmax(1) == truth) for file, answers in outputs.items()}
        return {"n_labels": len(keep), "top1": accuracy, "right": right, "skipped": skipped}

    def _start(self, cell: Cell) -> Backbone:
        return finetune.initial(self.run, self.recipe, cell.init, self.recipe.seed + cell.seed)

    def _probe(self, cell: Cell, keep: Any) -> Classifier:
        key = (cell.init, cell.seed if cell.init == "random" else 0)
        backbone = self._start(cell)
        if self._features is None or self._features[0] != key:
            self._features = key, extract(backbone, self.arrays[0], self.data.spec)
        features, targets = self._features[1][keep], self.data.train.labels[keep]
        fitted = linear.fit(
            features, targets, len(self.data.classes), self.recipe.probe.weight_decays, self.recipe.seed + cell.seed
        )
        classifier = Classifier(backbone, self.data.classes, self.data.spec).eval()
        with torch.no_grad():
            classifier.head.weight.copy_(torch.from_numpy(fitted.weight))
            classifier.head.bias.copy_(torch.from_numpy(fitted.bias))
        return classifier

    def _finetune(self, cell: Cell, keep: Any) -> Classifier:
        settings = self.recipe.finetune.model_copy(update={"init": cell.init})
        recipe = self.recipe.model_copy(update={"finetune": settings})
        seed = self.recipe.seed + cell.seed
        return finetune.train(self._start(cell), self.data, self.data.train.subset(keep), recipe, seed=seed)[0]

    def _int8(self, cell: Cell, classifier: Classifier, name: str) -> Any:
        """Probabilities of the int8 file, read back from disk. Any training image may calibrate: no label is needed."""
        target = open_format(name).without_timing()
        images = self.arrays[0]
        chosen = np.random.default_rng(0).permutation(len(images))[: self.recipe.export.calibration_images]
        if missing := target.missing():
            raise UserError(missing)
        with temporary_folder("int8") as folder:
            deployed = Deployed(classifier, self.data.spec)
            deployed.shipped = cell.init != "random"  # those are there to be compared with
            artifact = target.convert(deployed, "int8", images[chosen], folder)
            return target.load(artifact)(self.arrays[1])
