"""Reviewing labels on frozen features: wrong labels that were put in, and accuracy by which images are labelled next.

    python benchmarks/review_labels.py wrong trashnet/ --cache features.npz
    python benchmarks/review_labels.py next trashnet/ --cache features.npz
    python benchmarks/review_labels.py next cifar10/ --size 128 --images 5000 --tests 2000 --cache cifar.npz

The folder has one folder a class, or train/ and test/ of such folders.  The features are those of the starting weights
of the recipe `photos`, computed once and kept in --cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge import backbones, config
from softedge.data import sources
from softedge.data.images import EncodedImages, Images
from softedge.data.splitting import hold_out
from softedge.eval import active_learning, label_issues, linear
from softedge.eval.features import extract
from softedge.eval.knn import knn_predict
from softedge.records import InputSpec
from softedge.weights import starting

PER_CLASS = (5, 10, 20, 50)  # labels on average, one round of labelling after the other
DRAWS = 5


@dataclass
class Pool:
    """features (N, D), labels (N,) and contents (N,) of the training images and of those to test on."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.bool_]
    contents: NDArray[np.str_]

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["wrong", "next"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=0, help="training images, drawn with seed 0; 0: all")
    parser.add_argument("--tests", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("features.npz"))
    parser.add_argument("--shuffled", type=float, default=0.05)
    parser.add_argument("--methods", nargs="*")
    given = parser.parse_args()
    pool = pooled(given)
    (wrong if given.what == "wrong" else next_labels)(pool, given)


def pooled(given: argparse.Namespace) -> Pool:
    if not given.cache.exists():
        settings = config.load("photos").backbone
        weights = starting.preprocessing_of(settings)
        assert weights is not None
        inventory = sources.find(str(given.data))
        parts: dict[str, list[NDArray[np.generic]]] = {"features": [], "labels": [], "test": [], "contents": []}
        network = backbones.build(settings).eval()
        for split, images in inventory.splits.items():
            count = given.tests if split == "test" else given.images
            rows = np.sort(np.random.default_rng(0).permutation(len(images))[: count or len(images)])
            chosen = images.subset(rows)
            small = min(chosen.decode(0).shape[:2]) < given.size  # enlarged, and nothing cropped
            resize = given.size if small else round(given.size / weights.crop)
            spec = InputSpec(given.size, resize, weights.mean, weights.std, weights.interpolation)
            parts["features"].append(extract(network, chosen, spec, batch=64))
            parts["labels"].append(chosen.labels)
            parts["test"].append(np.full(len(chosen), split == "test"))
            parts["contents"].append(contents(chosen))
        np.savez(given.cache, **{key: np.concatenate(value) for key, value in parts.items()})  # type: ignore[arg-type]
    return Pool(**np.load(given.cache))


def contents(images: Images) -> NDArray[np.str_]:
    """sha256 of each file."""
    assert isinstance(images, EncodedImages)
    return np.array([hashlib.sha256(images.read(i)).hexdigest() for i in range(len(images))])


def wrong(pool: Pool, given: argparse.Namespace) -> None:
    """Labels replaced by another class at random; how many of them are among the worst, and among those flagged."""
    features, truth = pool.features[~pool.test], pool.labels[~pool.test]
    families = np.unique(pool.contents[~pool.test], return_inverse=True)[1]
    rows = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        changed = rng.permutation(len(truth))[: round(given.shuffled * len(truth))]
        labels = truth.copy()
        labels[changed] = (labels[changed] + rng.integers(1, pool.classes, len(changed))) % pool.classes
        bad = labels != truth
        start = time.process_time()
        fold = label_issues.folds(families.tolist(), labels, draw)
        probabilities = label_issues.cross_validated(features, labels, pool.classes, fold, draw)
        seconds = time.process_time() - start
        flagged = label_issues.likely_wrong(probabilities, labels)
        row = {"draw": draw, "shuffled": int(bad.sum()), "seconds": seconds}
        order = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")
        row |= measured("worst", order, bad)
        votes = neighbours(features, labels, pool.classes, fold)
        for name, part in (("linear", 2 * probabilities - votes), ("knn", votes)):
            row |= measured(name, np.argsort(part[np.arange(len(labels)), labels], kind="stable"), bad)
        row |= {"n_flagged": len(flagged), "precision": float(bad[flagged].mean())}
        row |= {"recall": float(bad[flagged].sum() / bad.sum())}
        row |= {"top1": float((probabilities.argmax(1) == truth).mean())}
        row |= with_cleanlab(labels, probabilities, bad)
        rows.append(row)
        print(json.dumps(row), flush=True)
    for key in rows[0].keys() - {"draw"}:
        values = [row[key] for row in rows]
        print(f"{key} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def neighbours(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, fold: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The part of ``label_issues.cross_validated`` that is k-NN."""
    votes = np.empty((len(labels), classes))
    for number in np.unique(fold):
        held = fold == number
        votes[held] = knn_predict(features[~held], labels[~held], features[held], classes)
    return votes


def measured(name: str, order: NDArray[np.int64], bad: NDArray[np.bool_]) -> dict[str, float]:
    """Precision among as many of the worst as there are wrong labels, which is the recall there, too."""
    return {f"{name}_precision_at_n": float(bad[order[: bad.sum()]].mean())}


def with_cleanlab(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], bad: NDArray[np.bool_]
) -> dict[str, Any]:
    """The same of cleanlab's ways to flag and to rank, where it is installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return {}
    found: dict[str, Any] = {}
    for name in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning"):
        issues = find_label_issues(labels, probabilities, filter_by=name, n_jobs=1)
        found[f"cleanlab_{name}_n"] = int(issues.sum())
        found[f"cleanlab_{name}_precision"] = float(bad[issues].mean())
        found[f"cleanlab_{name}_recall"] = float(bad[issues].sum() / bad.sum())
    from cleanlab.rank import order_label_issues

    for rank in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        order = order_label_issues(np.ones(len(labels), bool), labels, probabilities, rank_by=rank)
        found |= measured(f"cleanlab_{rank}", order, bad)
    return found


Choose = Callable[[NDArray[np.float32], NDArray[np.bool_], int, int, int, linear.Linear | None], NDArray[np.int64]]


def at_random(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng([seed, int(labelled.sum())])
    return rng.permutation(np.flatnonzero(~labelled))[:number]


def typiclust(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    return active_learning.typical(features, labelled, number, seed)


def centres(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    """The unlabelled image nearest to the centre of each of ``number`` clusters of the unlabelled ones."""
    points, rows = active_learning.unit(features), np.flatnonzero(~labelled)
    return rows[nearest_to_centres(points[rows], number, seed)]


def nearest_to_centres(points, number, seed):  # type: ignore[no-untyped-def]
    from sklearn.cluster import KMeans

    means = KMeans(number, n_init=1, random_state=seed).fit(points)
    chosen: list[int] = []
    distance = means.transform(points)
    for cluster in np.argsort(-np.bincount(means.labels_, minlength=number), kind="stable"):
        order = np.argsort(distance[:, cluster], kind="stable")
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return np.array(chosen)


def probcover(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    """Yehuda et al. 2022, arXiv 2205.11320: greedily cover the most images within a radius of the chosen ones.

    The radius is the largest at which 95 % of the balls are pure in the clusters of k-means with the number of classes.
    """
    points = active_learning.unit(features)
    distance = np.sqrt(np.maximum(2 - 2 * points @ points.T, 0))
    pseudo = active_learning.clustered(points, classes, seed)
    other = np.where(pseudo[:, None] == pseudo[None], np.inf, distance).min(1)  # a ball is pure below this radius
    near = distance < np.quantile(other, 0.05)
    covered = near[labelled].any(0)
    chosen: list[int] = []
    open_ = ~labelled
    for _ in range(number):
        gain = np.where(open_, (near & ~covered).sum(1), -1)
        best = int(gain.argmax())
        chosen.append(best)
        covered |= near[best]
        open_[best] = False
    return np.array(chosen)


def probabilities(layer, features):  # type: ignore[no-untyped-def]
    logits = layer(features).astype(np.float64)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def margin(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    if layer is None:
        return typiclust(features, labelled, number, classes, seed, layer)
    rows = np.flatnonzero(~labelled)
    unsure = active_learning.margins(probabilities(layer, features))
    return rows[np.argsort(unsure[rows], kind="stable")[:number]]


def diverse_margin(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
    if layer is None:
        return typiclust(features, labelled, number, classes, seed, layer)
    return active_learning.uncertain(features, probabilities(layer, features), labelled, number, seed)


def first_typical(rounds: int, then: Choose) -> Choose:
    """TypiClust up to PER_CLASS[rounds - 1] labels a class, then another."""

    def choose(features, labelled, number, classes, seed, layer):  # type: ignore[no-untyped-def]
        early = labelled.sum() < PER_CLASS[rounds - 1] * classes
        return (typiclust if early else then)(features, labelled, number, classes, seed, layer)

    return choose


METHODS: dict[str, Choose] = {
    "random": at_random,
    "typiclust": typiclust,
    "k-means": centres,
    "probcover": probcover,
    "margin": margin,
    "diverse margin": diverse_margin,
    "typiclust to 10, margin": first_typical(2, margin),
    "typiclust to 20, margin": first_typical(3, margin),
    "typiclust to 10, diverse": first_typical(2, diverse_margin),
}


def next_labels(pool: Pool, given: argparse.Namespace) -> None:
    """Accuracy on the test images of a linear layer, after each round of labelling."""
    decays = config.load("photos").probe.weight_decays
    table: dict[tuple[str, int], list[float]] = {}
    for draw in range(DRAWS):
        train, test = divided(pool, draw)
        features, labels = pool.features[train], pool.labels[train]
        for name in given.methods or METHODS:
            labelled, layer, start = np.zeros(len(train), bool), None, time.process_time()
            for per_class in PER_CLASS:
                number = per_class * pool.classes - int(labelled.sum())
                chosen = METHODS[name](features, labelled, number, pool.classes, draw, layer)
                assert len(set(chosen.tolist())) == number and not labelled[chosen].any()
                labelled[chosen] = True
                layer = linear.fit(features[labelled], labels[labelled], pool.classes, decays, draw)
                right = layer(pool.features[test]).argmax(1) == pool.labels[test]
                table.setdefault((name, per_class), []).append(float(right.mean()))
            of_draw = {per_class: round(table[name, per_class][-1], 4) for per_class in PER_CLASS}
            seconds = round(time.process_time() - start, 1)
            print(json.dumps({"draw": draw, "method": name, "top1": of_draw, "seconds": seconds}), flush=True)
    for name in given.methods or METHODS:
        cells = []
        for per_class in PER_CLASS:
            values = np.array(table[name, per_class])
            gain = values - np.array(table.get(("random", per_class), values))
            cells.append(f"{values.mean():.3f} ({gain.mean() * 100:+.1f} ± {gain.std(ddof=1) * 100:.1f})")
        print(f"{name:26} " + "  ".join(cells))


def divided(pool: Pool, draw: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to label and rows to test on: another fifth in every draw, or the given test images and four fifths."""
    rows = np.flatnonzero(~pool.test)
    if pool.test.any():
        return np.sort(np.random.default_rng(draw).permutation(rows)[: 4 * len(rows) // 5]), np.flatnonzero(pool.test)
    names = [str(number) for number in range(pool.classes)]
    held = hold_out(list(pool.contents), pool.labels.tolist(), names, 0.2, draw)
    train = rows[~held]
    return train[~np.isin(pool.contents[train], pool.contents[held])], rows[held]


if __name__ == "__main__":
    main()
