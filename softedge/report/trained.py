"""How the classifier of a run's files was trained: its network, start, stages and teacher."""

from __future__ import annotations

import math
from typing import Any

from softedge.report import words
from softedge.report.few import clearly_above

Values = dict[str, Any]


def origin(run: Values) -> str:
    """How the exported classifier was trained: its start, its stages, its teacher."""
    recipe = run["recipe"]
    if recipe.get("export", {}).get("source") == "given":
        return "It was trained elsewhere; this run was given its weights."
    student = taught_network(run)
    weights = (student or recipe.get("backbone", {})).get("weights", "random")
    named = {"package": "ImageNet weights", "imagenet": "ImageNet weights", "random": "random weights"}
    said = [f"It started from {named.get(weights, 'a weights file')}"]
    epochs = run["pretrain"].get("metrics", {}).get("epochs")
    if student:
        pass  # what was pretrained is its teacher
    elif epochs and words.pretrained(run):
        said.append(f"was pretrained without labels ({recipe.get('ssl', {}).get('method', '')}, {epochs} epochs)")
    elif epochs is None:
        said.append("was pretrained without labels")
    source = exported_from(run)
    if source == "scratch":
        number = run.get("scratch", {}).get("metrics", {}).get("n_train", 0)
        return f"It was trained from random weights on {words.count(number)} labelled images alone."
    if source == "finetune":
        number = run["finetune"].get("metrics", {}).get("n_train")
        images = f" on {words.count(number)} labelled images" if number else ""
        said.append(f"was fine-tuned in all layers{images}")
    elif source == "distill":
        said.append(_taught(run["distill"]))
    elif source == "probe":
        said.append("was given a linear classifier on its frozen features")
    return words.listing(said) + "."


def _taught(stage: Values) -> str:
    """Who taught, with how many images."""
    described = stage.get("pixels")
    over = f", by the features of {words.listing(list(described))}" if isinstance(described, dict) else ""
    over += " and by visual words" if over and "words" in stage else ""
    teachers = {
        "spread": f"labels that spread from labelled images to similar ones{over}",
        "linear": "the answers of a linear layer on the same features" if over else "the answers of a linear layer",
        "finetune": "the fine-tuned network's answers",
        "probe": "the answers of a linear classifier on its own frozen features",
    }
    metrics, teacher = stage.get("metrics", {}), stage.get("teacher", "")
    by = stage.get("taught_by", ()) if teacher == "ensemble" else (teacher,)
    who = words.listing([teachers[one] for one in by if one in teachers]) or "the answers of another network"
    labelled, without = metrics.get("n_train", 0), metrics.get("n_unlabelled", 0)
    return (
        f"was trained in all layers on {who}, for "
        f"{words.count(labelled)} images with a label and {words.count(without)} without"
    )


def taught_network(run: Values) -> Values:
    """name and weights (where it started from) of the network of the files, where it is not the run's: that taught it.

    Empty where the files hold the run's network.
    """
    if exported_from(run) != "distill":
        return {}
    network = run["distill"].get("network")
    return network if isinstance(network, dict) else {}


def exported_from(run: Values) -> str:
    """The stage whose classifier the files were made from; "" where nothing says so."""
    for row in run["files"]:
        if row.get("source"):
            return str(row["source"])
    return str(run["baselines"].get("classifier", ""))


_CALLED = {"probe": "linear", "scratch": "trained on labels alone", "finetune": "fine-tuned", "distill": "taught"}


def passed_over(run: Values) -> str:
    """Why another classifier of the run, with a higher accuracy on the test images, was not exported; "" where none
    has."""
    chosen, metrics = exported_from(run), {name: run.get(name, {}).get("metrics", {}) for name in _CALLED}
    top1 = {name: found.get("linear_top1" if name == "probe" else "top1") for name, found in metrics.items()}
    known = {name: value for name, value in top1.items() if words.is_number(value)}
    n = metrics.get(chosen, {}).get("n_test") or run["data"].get("n_test") or 0
    best = max(known, key=lambda name: known[name], default="")
    if chosen not in known or not n or round((known[best] - known[chosen]) * n) < 1:
        return ""
    more = round((known[best] - known[chosen]) * n)
    beyond = "beyond" if clearly_above(known[best], known[chosen], n) else "not clearly beyond"
    why = _chosen_on(run, chosen, best, metrics)
    return (
        f"The {_CALLED[best]} classifier has {words.percent(known[best])} on the {words.count(n)} test images, the "
        f"exported {_CALLED[chosen]} one {words.percent(known[chosen])}: {why}, never on test images; "
        f"a difference of {words.plural(more, 'test image')} is {beyond} noise."
    )


def _chosen_on(run: Values, chosen: str, best: str, metrics: Values) -> str:
    if run["recipe"].get("export", {}).get("source", "best") != "best":
        return "it was chosen by the recipe (export.source)"
    value, other = (metrics[name].get("val_top1") for name in (chosen, best))
    if not words.is_number(value) or not words.is_number(other):
        return "it was chosen as the last of the chain, since not every classifier was validated"
    n = metrics[chosen].get("n_val")
    by_teacher = run.get("distill", {}).get("validated") == "teacher"  # few labels: its teacher's, cross-validated
    called = {**_CALLED, "distill": "its teacher"} if by_teacher else _CALLED
    images = "labelled images, cross-validated" if by_teacher else "validation images"
    images = f"{words.count(n)} {images}" if n else images
    if metrics[best].get("kept", True) and other - value > _lead(chosen, other, n or 0):
        return (
            f"it was asked for (export.source), though the {_CALLED[best]} one is ahead on {images} "
            f"({called[best]} {words.percent(other)}, {called[chosen]} {words.percent(value)})"
        )
    kept = ", not clearly ahead" if other > value else ""
    return (
        f"it was chosen on {images} ({called[chosen]} {words.percent(value)}, {called[best]} "
        f"{words.percent(other)}{kept})"
    )


def _lead(chosen: str, top: float, n: int) -> float:
    """How far another classifier has to be ahead of ``chosen`` to be exported (``stages.classifier.best``)."""
    error = math.sqrt(top * (1 - top) / n) if n else 0.0
    return 1.96 * error if chosen == "distill" else error
