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
    was not measured; empty where there is no classifier, or it learnt from the labels alone itself.
    """
    metrics = run.get("scratch", {}).get("metrics", {})
    if not metrics:
        trained = run["finetune"] or run.get("distill") or run["probe"]
        given = run["recipe"].get("backbone", {}).get("weights", "random") != "random"
        if not trained or not (given or words.pretrained(run)):
            return Markup("")
        return Markup(
            "Labels alone, the same network from random weights trained as long: not measured; "
            "<code>softedge scratch RUN</code> measures it."
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
    said.append(f"more labels (now {round(per_class)} a class)" if per_class < 200 else "more labels")
    planned = bool(run.get("plan"))  # --minutes is refused where nothing was planned: a named recipe or data set
    said.append(f"more time (--minutes {2 * minutes:g})" if planned else "more epochs (--set ssl.epochs=...)")
    said.append("larger images (data.size)")
    return said[:4]
