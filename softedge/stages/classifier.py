"""Which classifier of a run is deployed: the best on validation images, or the one that the recipe names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from softedge.config import Recipe
from softedge.errors import UserError, quoted
from softedge.records import Result
from softedge.run import Run, sha256_of

SOURCES = ("probe", "scratch", "finetune", "distill")  # ties go to the later; each writes classifier.safetensors
BY_TEACHER = "teacher"  # details["validated"] of distill where labels are few: its val_top1 is the teacher's


def source(run: Run, recipe: Recipe) -> str:
    """The stage whose classifier is exported; UserError where it is not done."""
    asked = recipe.export.source
    if asked != "best":
        run.need(asked, asked)
        return asked
    done = trained(run)
    refuse_interrupted(run, "--set export.source", done)
    if not done:
        run.need("probe", "probe")
    return best_of(done)


def refuse_interrupted(run: Run, option: str, done: Iterable[str], stages: Iterable[str] = SOURCES) -> None:
    """UserError where one of ``stages`` is half done: it may be the best, and no other is taken without being asked.

    option: names one of those that are ``done`` instead.
    """
    for name in stages:
        if line := run.interrupted(name, name):
            others = " or ".join(f"{option}{'=' if '.' in option else ' '}{other}" for other in done)
            raise UserError(f"{line}; to do without it: {others}" if others else line)


def trained(run: Run) -> dict[str, Result]:
    """The finished stages that leave a classifier, in the order of the chain; UserError where its file is another."""
    results = {name: result for name in SOURCES if (result := run.result(name)) is not None}
    for name in results:
        path = run.folder(name) / "classifier.safetensors"
        if sha256_of(run, f"{name}/{path.name}") == "absent":
            raise UserError(
                f"{path} is missing, though {name} is done; bring it back, or do it again: "
                f"softedge {name} {quoted(run.root)} --force"
            )
    return results


def val_top1(result: Result) -> float | None:
    """Accuracy on the validation part of the training images; None where the stage did not measure it."""
    value = result.metrics.get("val_top1")
    return None if value is None else float(value)


def best_of(done: Mapping[str, Result]) -> str:
    """The stage with the best classifier of ``trained``'s; a student that does not follow its teacher is none."""
    followed = {name: result for name, result in done.items() if result.metrics.get("kept", True)}
    images = [int(result.metrics.get("n_val", 0)) for result in followed.values()]
    return best({name: val_top1(result) for name, result in followed.items()}, min(images, default=0))


def best(scores: dict[str, float | None], images: int = 0) -> str:
    """The highest validation accuracy; the latest stage where one of them has none, the probe where none of them has.

    scores: stage -> validation accuracy, in the order of the chain.  images: they were measured on, 0 where that is
    unknown.  With fifty images the highest accuracy is a matter of chance. What comes later in the chain has learnt
    from what came before, and is kept unless an earlier stage is ahead by more than the standard error of the accuracy
    (the one-standard-error rule, Breiman et al. 1984); a student, which learns from all images and several teachers,
    unless one is clearly ahead (1.96 of them: 95 %).  Where a class has a single labelled image, nothing is validated:
    a linear layer on frozen features is the safer choice there.
    """
    if not scores:
        raise UserError("no classifier to choose from")
    known = {name: value for name, value in scores.items() if value is not None}
    if not known and "probe" in scores and "distill" not in scores:
        return "probe"
    if len(known) < len(scores):
        return list(scores)[-1]
    top = max(known.values())
    error = standard_error(top, images)
    margins = {name: 1.96 * error if name == "distill" else error for name in known}
    return [name for name, value in known.items() if top - value <= margins[name]][-1]


def standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy measured on so many images; 0 where the number is unknown (0)."""
    return (accuracy * (1 - accuracy) / images) ** 0.5 if images else 0.0


def by_teacher(result: Result) -> bool:
    """Whether ``val_top1`` of a stage is that of its teacher: labels are too few to validate the network."""
    return result.details.get("validated") == BY_TEACHER


def why(run: Run, chosen: str) -> str:
    """The choice in a line."""
    done = trained(run)
    scores = {name: val_top1(result) for name, result in done.items()}
    judged = {name: f"the teacher of {name}" if by_teacher(result) else name for name, result in done.items()}
    known = ", ".join(f"{judged[name]} {value:.3f}" for name, value in scores.items() if value is not None)
    if len(scores) < 2:
        return f"classifier: {chosen}, the only one of the run"
    if not known and chosen == "probe":
        return (
            "classifier: probe, the linear layer (a class has one labelled image, and nothing says whether "
            f"{' or '.join(name for name in scores if name != chosen)} is better)"
        )
    if len(known.split(", ")) < len(scores):
        return f"classifier: {chosen}, the last of the chain (not all have a validation accuracy)"
    leader = max(scores, key=lambda name: scores[name] or 0.0)
    behind = chosen in scores and (scores[chosen] or 0.0) < (scores[leader] or 0.0)
    margin = f"; {leader} is not clearly ahead" if behind and chosen == best_of(done) else ""
    return f"classifier: {chosen} (validation accuracy: {known}{margin})"
