"""Is the classifier clearly better than what is cheap? Where it is not, no file of it is one to ship."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from markupsafe import Markup

from softedge.records import SIZES
from softedge.report import trained, words
from softedge.report.phrases import SHOW
from softedge.report.verdict import Pick, Verdict

Values = dict[str, Any]


def cheap_lead(run: Values) -> Markup:
    """Is the network worth it, in a sentence with the interval."""
    metrics, rival = run["baselines"]["metrics"], run["baselines"]["rival"]
    verdict = "clearly better" if metrics["useful"] else "not clearly better"
    if metrics["gain_high"] < 0:
        verdict = "clearly worse"
    the_rival = rival if rival.startswith("SVM") else f"the {rival}"
    if equals := _equals(run):
        than = f"than {'one' if verdict == 'clearly worse' else 'all'} of the {equals}; hardest to beat is {the_rival}"
    else:
        than = f"than the cheap classifier that did best on held-out training images, {the_rival}"
    return Markup("The network is {} {}: {} against {}, {} points (95 % {} to {}).").format(
        verdict, than, SHOW["percent"](metrics["top1"]), SHOW["percent"](metrics["cheap_top1"]),
        SHOW["points"](metrics["gain"]), SHOW["points"](metrics["gain_low"]), SHOW["points"](metrics["gain_high"]),
    )  # fmt: skip


def _equals(run: Values) -> str:
    """The cheap classifiers of which the held-out training images do not say the best; "" where there is one."""
    rivals, n = run["baselines"].get("rivals", ()), run["baselines"]["metrics"].get("n_val")
    if len(rivals) < 2:
        return ""
    images = words.plural(n, "held-out training image") if n else "no held-out training images"
    return f"{len(rivals)} cheap classifiers that {images} {'cannot' if n else 'can'} tell apart"


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
    hardest = f"; {_called(rival)} is the hardest to beat of {equals}" if (equals := _equals(run)) else ""
    reason = (
        f"The difference is {words.points(metrics['gain'])} points (95 % interval {interval}), "
        f"{_sign(metrics)}{hardest}. What may help: {words.listing(_advice(run), 'or')}."
    )
    return Pick(pick.device, "not better than cheap", "", answer, reason)


def _sign(metrics: Values) -> str:
    return "clearly below zero" if metrics["gain_high"] < 0 else "not clearly above zero"


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
    plan = run.get("plan") or {}  # --minutes is refused where nothing was planned: a named recipe or data set
    more = plan.get("more_minutes")  # with fewer, the same would be planned again
    if not plan:
        said.append("more epochs (--set ssl.epochs=...)")
    elif more != 0:
        said.append(f"more time (--minutes {max(2 * minutes, more or 0):g})")
    return [*said, *_larger(run)][:4]


def _larger(run: Values) -> list[str]:
    """The next input size that plans know, where the photos have the pixels and the device is not known to be too slow
    for it."""
    recipe, plan, student = run["recipe"], run.get("plan") or {}, trained.taught_network(run)
    now = run["data"].get("spec", {}).get("size", math.inf)
    now = (recipe.get("distill", {}).get("size") or now) if student else now
    size = next((size for size in SIZES if size > now), math.inf)
    network = student.get("name") or recipe.get("backbone", {}).get("name")
    fits = [fit for fit in plan.get("fits", ()) if (fit.get("network") or plan.get("network")) == network]
    if size > run["data"].get("longer_side", 0) or any(fit["size"] <= size and not fit["met"] for fit in fits):
        return []
    return [f"larger images (--set {'distill' if student else 'data'}.size={size})"]
