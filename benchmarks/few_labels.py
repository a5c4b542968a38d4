"""Few labels, the rest of the training images without: a linear layer on frozen features against `softedge distill`.

    python benchmarks/few_labels.py trashnet/ --labels 10 25 --draws 5

The folder has one folder a class. A fifth of each class is the test set, the same in every draw; a draw chooses the
labelled images of the rest. With --choose, a fifth of the training images takes the place of the test images, which
stay unseen: for settings. With --features nothing is trained but linear layers on frozen features, in minutes.
Prints a line of JSON a draw, and the means.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path

import numpy as np

from softedge import backbones, config
from softedge.data import sources
from softedge.data.images import Images
from softedge.data.splitting import hold_out
from softedge.data.stamps import content_hashes
from softedge.eval import features, few_labels, linear, validation
from softedge.eval.measures import unit
from softedge.eval.spreading import spread, whitened
from softedge.records import InputSpec
from softedge.run import Run
from softedge.stages import classifier, distill, following, pretrain, probe, spreading
from softedge.stages.data import opened
from softedge.stages.opening import started
from softedge.weights import starting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 25])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--beside", nargs="*", default=[], help="with --features: networks of installed packages")
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    spreading.extract = remembered(features.extract)  # type: ignore[attr-defined]  # the photos of all draws are the same
    images, train, test = divided(given.data, given.choose)
    measure = Frozen(images, given.size, given.beside) if given.features else measured
    rows = []
    for labels in given.labels:
        for draw in given.draws:
            rows.append({"labels": labels, "draw": draw} | measure(images, train, test, labels, draw, given))
            print(json.dumps(rows[-1]), flush=True)
        found = [row for row in rows if row["labels"] == labels]
        for key in found[0].keys() - {"labels", "draw"}:
            print(labels, key, f"{np.mean([row[key] for row in found]):.3f}", flush=True)


def divided(folder: Path, choose: bool) -> tuple[Images, np.ndarray, np.ndarray]:
    """The images, and the rows to train and to measure on."""
    inventory = sources.find(str(folder))
    images = inventory.splits["train"]
    hashes = np.array(content_hashes({"train": images})["train"])
    rows = np.arange(len(images))
    for seed in (0, 1) if choose else (0,):
        held = hold_out(list(hashes[rows]), list(images.labels[rows]), inventory.classes, 0.2, seed)
        rows, test = rows[~held], rows[held]
    return images, rows[~np.isin(hashes[rows], hashes[test])], test


def measured(
    images: Images, train: np.ndarray, test: np.ndarray, labels: int, draw: int, given: argparse.Namespace
) -> dict[str, float]:
    """Accuracies of one draw, through the stages of a deployment."""
    kept = train[linear.pick_per_class(images.labels[train], labels, np.random.default_rng(draw))]
    with tempfile.TemporaryDirectory(prefix="softedge-few-") as scratch:
        root = Path(scratch) / "data"
        for part, rows in (("train", kept), ("test", test), ("unlabeled", np.setdiff1d(train, kept))):
            for row in rows:
                file = images.file(row).resolve()  # type: ignore[attr-defined]
                place = root / part / (file.parent.name if part != "unlabeled" else "")
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{row}{file.suffix}").symlink_to(file)
        values = [f"data.source={root}", f"data.size={given.size}", "probe.random_baseline=false", f"seed={draw}"]
        recipe = config.load("photos", [*values, "probe.few_labels=0", *given.set])
        with started(Path(scratch) / "run", recipe) as run:
            return accuracies(run, recipe)


class Frozen:
    """The same draws on frozen features of the starting weights, at ``size`` pixels.

    linear: a linear layer on the labels.  spread: the labels spread, on the training images without one.  taught: a
    linear layer on what was spread.  linear_val, spread_val: cross-validated over the labelled images.  With other
    networks beside, at the pixels of their weights: spread_over, linear_over, and both together as ``distill`` weighs
    them, on the training images without a label; weight: that of what spread; unwhitened: spread_over without it;
    with_words: together, with visual words beside the features.
    """

    def __init__(self, images: Images, size: int, beside: list[str]):
        settings = config.load("photos").backbone
        self.features = described(images, settings, size)
        others = [config.Backbone(name=name, weights="package") for name in beside]
        parts = [self.features, *(described(images, other) for other in others)]
        self.all = np.concatenate([unit(part) for part in parts], axis=1)
        self.words = spreading.words(images, spreading.SIDE) if beside else None

    def __call__(
        self, images: Images, train: np.ndarray, test: np.ndarray, labels: int, draw: int, given: argparse.Namespace
    ) -> dict[str, float]:
        kept = linear.pick_per_class(images.labels[train], labels, np.random.default_rng(draw))
        known = np.full(len(train), -1)
        known[kept] = images.labels[train[kept]]
        here, classes = self.features[train], int(images.labels.max()) + 1
        decays = config.load("photos").probe.weight_decays
        layer = linear.fit(here[kept], known[kept], classes, decays, draw)
        spreading = spread(whitened(here), known, classes)
        answers = spreading().argmax(1)
        taught = linear.fit(here, answers, classes, (following._DECAY,), draw)
        folds = validation.folds(images.subset(train[kept]), draw)
        right = {"linear_val": 0, "spread_val": int((spreading.cross_validated(folds) == known[kept]).sum())}
        for fold in np.unique(folds):
            held = folds == fold
            fitted = linear.fit(here[kept][~held], known[kept][~held], classes, (layer.weight_decay,), draw)
            right["linear_val"] += int((fitted(here[kept][held]).argmax(1) == known[kept][held]).sum())
        without, truth = known < 0, images.labels

        def on_unlabelled(scores: np.ndarray) -> float:
            return float((scores[without].argmax(1) == truth[train[without]]).mean())

        more = {}
        if self.all.shape != self.features.shape:
            over = self.all[train]
            assert self.words is not None
            found = few_labels.answer(over, known, classes, folds, decays, draw)
            worded = few_labels.answer(over, known, classes, folds, decays, draw, self.words[train])
            more = {
                "unwhitened": on_unlabelled(spread(over, known, classes)()),
                "spread_over": on_unlabelled(spread(whitened(over), known, classes)()),
                "linear_over": on_unlabelled(linear.fit(over[kept], known[kept], classes, decays, draw)(over)),
                "together": on_unlabelled(found.probabilities),
                "with_words": on_unlabelled(worded.probabilities),
                "weight": found.weight,
            }
        return (
            more
            | {
                "linear": float((layer(self.features[test]).argmax(1) == truth[test]).mean()),
                "spread": float((answers[without] == truth[train[without]]).mean()),
                "taught": float((taught(self.features[test]).argmax(1) == truth[test]).mean()),
            }
            | {key: count / len(kept) for key, count in right.items()}
        )


def described(images: Images, settings: config.Backbone, size: int = 0) -> np.ndarray:
    """Features of all images, at the pixels of the weights where ``size`` is 0."""
    given = starting.preprocessing_of(settings)
    assert given is not None
    spec = InputSpec(size or given.size, size or given.size, given.mean, given.std, given.interpolation)
    return features.extract(backbones.build(settings), images, spec)


def accuracies(run: Run, recipe: config.Recipe) -> dict[str, float]:
    data = opened(run, recipe)
    pretrain.stage(run, recipe, data)
    probed = probe.stage(run, recipe, data).metrics
    taught = distill.stage(run, recipe, data)
    metrics = taught.metrics
    chosen = "distilled" if classifier.source(run, recipe) == "distill" else "linear"
    found = {"linear": probed["linear_top1"], "distilled": metrics["top1"], "teacher": metrics["teacher_top1"]}
    more = {key: metrics[key] for key in ("agreement", "linear_agreement") if key in metrics}
    return found | {"chosen": found[chosen], "linear_val": probed["val_top1"], "seconds": taught.seconds} | more


def remembered(extract):  # type: ignore[no-untyped-def]
    """``extract`` that asks a network once for each picture."""
    known: dict[tuple[object, ...], np.ndarray] = {}

    @functools.wraps(extract)
    def once(model, images, spec, **options):  # type: ignore[no-untyped-def]
        if not hasattr(model, "settings"):  # no network: words are of all images together
            return extract(model, images, spec, **options)
        keys = [(model.settings.name, spec, content) for content in images.hashes]
        new = [row for row, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip([keys[row] for row in new], extract(model, images.subset(new), spec, **options)))
        return np.stack([known[key] for key in keys])

    return once


if __name__ == "__main__":
    main()
