"""Which classifier of a run is deployed: the best on validation images, or the one that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping

from softedge.config import Recipe
from softedge.errors import UserError
from softedge.records import Result
from softedge.run import Run, sha256_of

SOURCES = ("probe", "scratch", "finetune", "distill")  # ties go to the later; each writes classifier.safetensors


def source(run: Run, recipe: Recipe) -> str:
    """The stage whose classifier is exported; UserError where it is not done."""
    asked = recipe.export.source
    if asked != "best":
        run.need(asked, asked)
        return asked
    done = trained(run)
    if not done:
        run.need("probe", "probe")
    return best_of(done)


def trained(run: Run) -> dict[str, Result]:
    """The finished stages that leave a classifier, in the order of the chain; UserError where its file is another."""
    results = {name: result for name in SOURCES if (result := run.result(name)) is not None}
    for name in results:
        path = run.folder(name) / "classifier.safetensors"
        if sha256_of(run, f"{name}/{path.name}") == "absent":
            raise UserError(
                f"{path} is missing, though {name} is done; bring it back, or do it again: "
                f"softedge {name} {run.root} --force"
            )
    return results


def val_top1(result: Result) -> float | None:
    """Accuracy on the validation part of the training images; None where the stage did not measure it."""
    value = result.metrics.get("val_top1")
    return None if value is None else float(value)


def best_of(done: Mapping[str, Result]) -> str:
    """The stage with the best classifier of ``trained``'s; a student that does not follow its teacher is none."""
    return best({name: val_top1(result) for name, result in done.items() if result.metrics.get("kept", True)})


def best(scores: dict[str, float | None]) -> str:
    """The highest validation accuracy, ties to the later stage; the latest stage where one of them has none.

    scores: stage -> validation accuracy, in the order of the chain.
    """
    if not scores:
        raise UserError("no classifier to choose from")
    names = list(scores)
    if any(value is None for value in scores.values()):
        return names[-1]
    return max(reversed(names), key=lambda name: scores[name] or 0.0)


def why(run: Run, chosen: str) -> str:
    """The choice in a line."""
    scores = {name: val_top1(result) for name, result in trained(run).items()}
    known = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if value is not None)
    if len(scores) < 2:
        return f"classifier: {chosen}, the only one of the run"
    if len(known.split(", ")) < len(scores):
        return f"classifier: {chosen}, the last of the chain (not all have a validation accuracy)"
    return f"classifier: {chosen} (validation accuracy: {known})"
