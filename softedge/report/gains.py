"""What pretraining, starting weights and labels gained: the sentences of the page, each with its interval."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from softedge.report import words
from softedge.report.phrases import SHOW, number

Values = dict[str, Any]


def learning_lead(run: Values) -> Markup:
    metrics, gains = run["probe"]["metrics"], run["probe"].get("gains", {})
    key = "few_linear_top1" if "few_linear_top1" in gains else "linear_top1" if "linear_top1" in gains else "knn_top1"
    if key not in gains:
        return Markup("The features are frozen; only a classifier on top is trained.")
    few = run["probe"].get("few_labels_per_class")
    with_ = f"With {few} labels per class" if key.startswith("few") else "With all labels"
    what = "k-NN" if "knn" in key else "a linear classifier"
    source = "pretraining" if words.pretrained(run) else "the starting weights"
    gain = number(gains[key], words.points(gains[key]).lstrip("+" + words.MINUS))
    both = SHOW["percent"](metrics[key]), SHOW["percent"](metrics[f"random_{key}"])
    low, high = run["probe"].get("gain_intervals", {}).get(key, (gains[key], gains[key]))
    within = Markup(" (95 % {} to {})").format(SHOW["points"](low), SHOW["points"](high)) if low < high else ""
    if low <= 0 <= high:
        text = "{}, {} gains nothing clear from {}: {} and {} with random weights, a difference of {} points{}."
        return Markup(text).format(with_, what, source, *both, SHOW["points"](gains[key]), within)
    verb = "gains" if gains[key] > 0 else "loses"
    return Markup("{}, {} {} {} points{} from {}: {} instead of {}.").format(
        with_, what, verb, gain, within, source, *both
    )


def known(run: Values) -> bool:
    """Whether anything is known of what training was worth; of weights that were only exported nothing is."""
    if run["recipe"].get("export", {}).get("source") != "given":
        return True
    stages = ("probe", "pretrain", "finetune", "distill", "scratch", "baselines", "linear", "transfer", "labels")
    return any(run.get(stage) for stage in stages)


def worth_it(run: Values) -> str:
    """What continued pretraining did to the features, and which were kept; "" where it was not asked for."""
    metrics = run["pretrain"].get("metrics", {})
    before, after = metrics.get("before_val_top1"), metrics.get("after_val_top1")
    if not words.is_number(before) or not words.is_number(after):
        return ""
    kept = "those of the starting weights" if run["pretrain"].get("kept") == "start" else "the pretrained ones"
    interval = ""
    if words.is_number(metrics.get("gain_low")):  # runs of earlier versions have none
        gain, low, high = (words.points(metrics[key]) for key in ("gain", "gain_low", "gain_high"))
        interval = f" (difference {gain} points, 95 % interval {low} to {high})"
    return (
        f"Of {words.count(metrics['n_val'])} held-out training images a linear layer answers {words.percent(before)} "
        f"right on the features of the starting weights and {words.percent(after)} on the pretrained ones{interval}: "
        f"{kept} were kept."
    )


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
