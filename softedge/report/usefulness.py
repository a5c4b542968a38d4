"""Is the classifier clearly better than what is cheap? Where it is not, no file of it is one to ship."""

from __future__ import annotations

import dataclasses
from typing import Any

from markupsafe import Markup

from softedge.report import words
from softedge.report.phrases import SHOW
from softedge.report.verdict import Pick, Verdict

Values = dict[str, Any]


def judged(verdict: Verdict, run: Values) -> Verdict:
    """The verdict, with every file that would be shipped held back where ``softedge baselines`` found no clear gain."""
    metrics = run["baselines"].get("metrics", {})
    if metrics.get("useful", True):
        return verdict
    picks = tuple(_held_back(pick, run) if pick.status.startswith("ship") else pick for pick in verdict.picks)
    return dataclasses.replace(verdict, picks=picks)


def _held_back(pick: Pick, run: Values) -> Pick:
    metrics, rival = run["baselines"]["metrics"], run["baselines"]["rival"]
    answer = (
        f"Do not ship {words.artifact_name(pick.artifact)} yet: the network gets {words.percent(metrics['top1'])} of "
        f"{words.count(metrics['n_test'])} test images right, "
        f"and {_called(rival)} {words.percent(metrics['cheap_top1'])}."
    )
    interval = f"{words.points(metrics['gain_low'])} to {words.points(metrics['gain_high'])}"
    reason = (
        f"The difference is {words.points(metrics['gain'])} points (95 % interval {interval}), not clearly above zero. "
        f"What may help: {words.listing(_advice(run), 'or')}."
    )
    return Pick(pick.device, "not better than cheap", "", answer, reason)


def labels_alone(run: Values) -> Markup:
    """What the run's classifier gains over the same network trained as long on the labels alone; what to do where that
    was not measured and pretraining ran; else empty.
    """
    metrics = run.get("scratch", {}).get("metrics", {})
    if not metrics:
        if not words.pretrained(run) or not run["finetune"]:
            return Markup("")
        return Markup(
            "Not measured: the same network trained as long on the labels alone (<code>softedge scratch</code>)."
        )
    said = Markup(
        "The same network from random weights, trained on the labels alone with as many images ({} epochs): {}."
    )
    said = said.format(SHOW["count"](metrics["epochs"]), SHOW["percent"](metrics["top1"]))
    if "gain" not in metrics:
        return said
    clear = "better" if metrics["gain_low"] > 0 else "worse" if metrics["gain_high"] < 0 else ""
    how = f"clearly {clear}" if clear else "not clearly better"
    return said + Markup(" The {} classifier has {}, {} points (95 % {} to {}): {}.").format(
        {"finetune": "fine-tuned", "distill": "taught", "probe": "linear"}[run["scratch"]["compared"]],
        SHOW["percent"](metrics["other_top1"]), SHOW["points"](metrics["gain"]), SHOW["points"](metrics["gain_low"]),
        SHOW["points"](metrics["gain_high"]), how,
    )  # fmt: skip


def _called(rival: str) -> str:
    return {"majority class": "always answering with the most frequent class"}.get(rival, f"an {rival}")


def _advice(run: Values) -> list[str]:
    """What there is still to try."""
    recipe, metrics = run["recipe"], run["baselines"]["metrics"]
    said = []
    if recipe.get("backbone", {}).get("weights", "random") == "random":
        said.append(
            "pretrained starting weights (softedge deploy takes them for a folder unless --recipe says otherwise)"
        )
    if not run["finetune"] and not run.get("distill"):
        said.append("fine-tuning (softedge finetune)")
    per_class = metrics["n_train"] / max(1, len(run["data"].get("classes") or []))
    minutes = recipe.get("plan", {}).get("minutes", 15.0)
    said.append(f"more labels (there are {round(per_class)} a class)" if per_class < 200 else "more labels")
    planned = bool(run.get("plan"))  # --minutes is refused where nothing was planned: a named recipe or data set
    said.append(f"more time (--minutes {2 * minutes:g})" if planned else "more epochs (--set ssl.epochs=...)")
    said.append("larger images (data.size)")
    return said[:4]


def origin(run: Values) -> str:
    """How the exported classifier was trained: its start, its stages, its teacher."""
    recipe = run["recipe"]
    if recipe.get("export", {}).get("source") == "given":
        return "It was trained elsewhere; this run was given its weights."
    weights = recipe.get("backbone", {}).get("weights", "random")
    named = {"package": "ImageNet weights", "imagenet": "ImageNet weights", "random": "random weights"}
    said = [f"It started from {named.get(weights, 'a weights file')}"]
    epochs = run["pretrain"].get("metrics", {}).get("epochs")
    if epochs and words.pretrained(run):
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


def exported_from(run: Values) -> str:
    """The stage whose classifier the files were made from; "" where nothing says so."""
    for row in run["files"]:
        if row.get("source"):
            return str(row["source"])
    return str(run["baselines"].get("classifier", ""))
