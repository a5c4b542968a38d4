"""``softedge label-issues``: images whose label is probably wrong, from features that have not learnt the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from softedge import config
from softedge.config import Recipe
from softedge.data import near_pairs
from softedge.data.decoding import BadImage
from softedge.data.images import Data, Images
from softedge.data.splitting import joined
from softedge.errors import UserError, quoted
from softedge.eval import label_issues as confident
from softedge.files import csv_table, read_table
from softedge.progress import say
from softedge.records import Outcome, Result
from softedge.run import Run, atomic_path, perform, write_text
from softedge.stages import features
from softedge.stages.base import INDEX, hashes
from softedge.stages.opening import reopen
from softedge.stages.reviewed import RECIPE, opened_for_review, say_what_follows

NAME = "label_issues"
FILE = "wrong_labels.csv"
PICTURES = 24  # kept for the report
WEAK = 0.8  # agreement, an assumption: of 0.75 (CIFAR-10) 70 % of the list were right, of 0.89 (TrashNet) 39 %
_SIDE = 224  # pixels of the longer side of a picture
_WIDE = 0.2  # share of a class above which near-duplicates are not a family: a film would leave nothing to train on


@dataclass(frozen=True)
class Issue:
    """An image and the class it looks like.  probabilities: of both, from a classifier that has not seen the image."""

    rank: int
    name: str
    split: str
    label: str
    suggested: str
    probability: float
    suggested_probability: float


def label_issues(
    source: str | PathLike[str], out: str | Path | None = None, set: Sequence[str] = (), force: bool = False
) -> Result:
    """Likely wrong labels of a run or a folder, the worst first; writes ``label_issues/wrong_labels.csv`` into the run.

    out: the run that is made of a folder.  ``details["issues"]`` of the result has the first ones.
    """
    with opened_for_review(source, out, set, _labelled) as (run, recipe, data):
        result = stage(run, recipe, data, force)
        if result.metrics["n_issues"]:
            say_what_follows(data, run.root / NAME / FILE)
        return result


def _labelled(data: Data) -> None:
    if not len(data.train):
        raise UserError(
            f"{data.source} has no labelled images to look for wrong labels in; add class folders to the data"
        )


def stage(run: Run, recipe: Recipe, data: Data, force: bool = False) -> Result:
    """As every stage; done again where images, labels or near-duplicates have changed."""
    _labelled(data)
    extracted = features.stage(run, recipe, data)
    return perform(
        run,
        NAME,
        lambda folder: _work(run, recipe, data, extracted, folder),
        recipe=recipe.section("seed"),
        inputs=hashes(run, [INDEX, f"data/{near_pairs.FILE}", features.FILE]),
        force=force,
        renew=True,
    )


def doubts(source: str | Path, found: Result) -> list[str]:
    """A line where the features are too weak for the list to be believed, with the command that has better ones."""
    if found.metrics["cv_top1"] >= WEAK:
        return []
    line = "weak features: most of these labels are probably right"
    if (Path(source) / "recipe.toml").is_file():
        of_run, of_folder = reopen(source)[1].data, config.load(RECIPE).data
        if of_run.size < of_folder.size:
            command = f"softedge label-issues {quoted(of_run.source)}"
            return [f"{line}; better, at {of_folder.size} pixels instead of {of_run.size}: {command}"]
    return [line]


def _work(run: Run, recipe: Recipe, data: Data, extracted: features.Features, folder: Path) -> Outcome:
    names = [*data.train.names, *data.test.names]
    labels = np.concatenate([data.train.labels, data.test.labels])
    vectors = np.concatenate([extracted.pretrain[: len(data.train)], extracted.test])  # the labelled ones come first
    contents = [*features.contents(data.train), *features.contents(data.test)]
    families = _families(contents, labels.tolist(), near_pairs_of(run, names))
    seen, skipped = _learnable(families, labels, data.classes)
    fold = confident.folds(families[seen].tolist(), labels[seen], recipe.seed)
    probabilities = confident.cross_validated(vectors[seen], labels[seen], len(data.classes), fold, recipe.seed)
    right = probabilities.argmax(1) == labels[seen]
    others = probabilities.copy()
    others[np.arange(len(seen)), labels[seen]] = -1
    issues = [
        Issue(
            rank,
            names[seen[row]],
            "train" if seen[row] < len(data.train) else "test",
            data.classes[labels[seen[row]]],
            data.classes[others[row].argmax()],
            round(float(probabilities[row, labels[seen[row]]]), 4),
            round(float(others[row].max()), 4),
        )
        for rank, row in enumerate(confident.likely_wrong(probabilities, labels[seen]), start=1)
    ]
    write_text(folder / FILE, table(issues))
    _keep_pictures(issues[:PICTURES], data, folder)
    say(f"label issues: {len(issues)} of {len(seen)} labels look wrong; all in {run.root / 'label_issues' / FILE}")
    confused = Counter((issue.label, issue.suggested) for issue in issues).most_common(10)
    return Outcome(
        {
            "n_issues": len(issues),
            "n_test_issues": sum(issue.split == "test" for issue in issues),
            "n_labelled": len(seen),
            "cv_top1": float(right.mean()),
        },
        {
            "features": extracted.origin,
            "issues": [asdict(issue) for issue in issues[:PICTURES]],
            "confused": [{"label": label, "suggested": other, "n": count} for (label, other), count in confused],
        },
        skipped,
    )


def near_pairs_of(run: Run, names: Sequence[str]) -> list[tuple[int, int]]:
    """The near-duplicates that the data stage found, as positions in ``names``; none in runs that did not look."""
    position = {name: number for number, name in enumerate(names)}
    path = run.folder("data") / near_pairs.FILE
    if not path.exists():
        return []
    pairs = ((row.get("name"), row.get("other_name")) for row in read_table(path))
    return [(position[a], position[b]) for a, b in pairs if a in position and b in position]


def _families(contents: Sequence[str], labels: Sequence[int], near: Sequence[tuple[int, int]]) -> np.ndarray:
    """(N,) the family of every image: copies and, unless they are a large part of a class, near-duplicates."""
    number = {content: row for row, content in reversed(list(enumerate(contents)))}
    groups = [number[content] for content in contents]
    families = joined(groups, near)
    of_class = Counter(labels)
    size = Counter(zip(families, labels))
    wide = {family for (family, label), count in size.items() if count > max(2, _WIDE * of_class[label])}
    return np.array([-1 - group if family in wide else family for group, family in zip(groups, families)])


def _learnable(families: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, dict[str, str]]:
    """The images of classes with at least two families, and why others are left out: nothing could be learnt for them.

    UserError where fewer than two classes are left.
    """
    count = {int(label): len(np.unique(families[labels == label])) for label in np.unique(labels)}
    few = [label for label, number in count.items() if number < 2]
    if len(count) - len(few) < 2:
        raise UserError("label issues: fewer than two classes have two different labelled images; label some more")
    skipped = {f"class {classes[label]}": "a single picture, nothing to compare it with" for label in few}
    return np.flatnonzero(~np.isin(labels, few)), skipped


def table(issues: Sequence[Issue]) -> str:
    """CSV with a header, the worst first."""
    return csv_table(Issue, issues)


def _keep_pictures(issues: Sequence[Issue], data: Data, folder: Path) -> None:
    """``pictures/<rank>.png`` of the first ones for the report, which must not depend on where the images are."""
    from PIL import Image

    place: dict[tuple[str, str], tuple[Images, int]] = {}
    for split, part in (("train", data.train), ("test", data.test)):
        place |= {(split, name): (part, row) for row, name in enumerate(part.names)}
    for issue in issues:
        images, row = place[issue.split, issue.name]
        try:
            picture = Image.fromarray(images.decode(row))
        except BadImage:  # gone since the run looked at it: the label may be wrong nevertheless
            continue
        picture.thumbnail((_SIDE, _SIDE))
        with atomic_path(folder / "pictures" / f"{issue.rank}.png") as temporary:
            picture.save(temporary)


def read(run: Run) -> list[dict[str, str]]:
    """The rows of ``wrong_labels.csv``; empty where the stage was not run."""
    if run.result(NAME) is None:
        return []
    return read_table(run.folder(NAME) / FILE)
