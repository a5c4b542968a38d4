"""Was pretraining worth it? Means, intervals and the sentence, computed from the accuracies alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from softedge.eval.bootstrap import paired

METHOD_WORDS = {"finetune": "fine-tuning", "probe": "a linear layer on frozen features"}


@dataclass(frozen=True)
class Mean:
    """Mean of seeds and the half width of its 95% interval (Student's t with n - 1 degrees of freedom)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def mean_and_interval(values: Sequence[float]) -> Mean:
    """The mean of at least two values, with its interval."""
    from scipy.stats import t

    n = len(values)
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    return Mean(mean, float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n), n)


Judgement = Literal["helped", "hurt", "not shown"]


def compare(
    with_it: Sequence[float],
    without: Sequence[float],
    right: Sequence[ArrayLike] = (),
    other_right: Sequence[ArrayLike] = (),
) -> tuple[Mean, Judgement]:
    """The gain, paired by seed (both sides saw the same labels), and what may be said of it.

    right, other_right: which test images each seed answered correctly, (N,) each: the noise of the images, by a paired
    bootstrap, then comes on top of that of the seeds.
    """
    gain = mean_and_interval([a - b for a, b in zip(with_it, without, strict=True)])
    if len(right) and len(other_right):
        images = paired(np.stack(right), np.stack(other_right))
        widest = max(images.high - images.mean, images.mean - images.low)
        gain = Mean(gain.mean, math.hypot(gain.half_width, widest), gain.n)
    if gain.low > 0:
        return gain, "helped"
    return gain, "hurt" if gain.high < 0 else "not shown"


Rights = Mapping[tuple[str, str, str, float], Sequence[ArrayLike]]  # (init, method, file, fraction) -> one a seed


def _right(row: Mapping[str, Any], rights: Rights) -> Sequence[ArrayLike]:
    return rights.get((row["init"], row["method"], row["file"], row["fraction"]), ())


def comparisons(rows: Sequence[dict[str, Any]], rights: Rights | None = None) -> list[dict[str, Any]]:
    """Every row that starts from SSL or starting weights against the random row of the same method, labels and file.

    rights: which test images were answered correctly, where that is known.
    """
    rights = rights or {}
    random = {(r["method"], r["file"], r["fraction"]): r for r in rows if r["init"] == "random"}
    entries = []
    for row in rows:
        other = random.get((row["method"], row["file"], row["fraction"]))
        if row["init"] == "random" or other is None:
            continue
        gain, judgement = compare(row["top1"], other["top1"], *(_right(r, rights) for r in (row, other)))
        entries.append(
            {
                **{key: row[key] for key in ("init", "method", "file", "fraction", "n_labels")},
                "top1": row["mean"],
                "random_top1": other["mean"],
                "gain": gain.mean,
                "low": max(-1.0, gain.low),  # few seeds give a wide t: no gain is beyond 100 points
                "high": min(1.0, gain.high),
                "n_seeds": gain.n,
                "judgement": judgement,
            }
        )
    return entries


def verdict(rows: Sequence[dict[str, Any]], rights: Rights | None = None) -> dict[str, Any]:
    """The headline and one sentence per number of labels; also when the answer is no.

    rows: {init, method, file, fraction, n_labels, top1: one per seed, mean}, as in the "labels" stage's details.
    Judged by fine-tuning where it was measured (the more accurate of the two, given labels), in PyTorch; else by the
    probe. What differs for the other of the two is said after it.
    """
    every = [c for c in comparisons(rows, rights) if c["file"] == "pytorch"]
    methods = [m for m in ("finetune", "probe") if any(c["method"] == m and c["init"] == "ssl" for c in every)]
    if not methods:
        return {"answer": "not run", "headline": "Not measured: there is no pretrained row.", "sentences": []}
    answer, headline = _headline(_judged(every, methods[0]), METHOD_WORDS[methods[0]])
    if answer == "not shown" and all(c["n_seeds"] == 2 for c in every):
        headline += " Two seeds show only differences that hardly vary: repeat with --set labels.seeds=3 or more."
    for method in methods[1:]:
        by = _judged(every, method)
        shown = [f"{verb} at {_list(by[key])}" for key, verb in (("helped", "gained"), ("hurt", "lost")) if by[key]]
        headline += f" {METHOD_WORDS[method].capitalize()} {' and '.join(shown)}." if shown else ""
    ordered = sorted(every, key=lambda c: (c["init"] != "ssl", c["method"] != methods[0], c["fraction"]))
    return {"answer": answer, "headline": headline, "sentences": [_sentence(c) for c in ordered]}


def _judged(every: Sequence[dict[str, Any]], method: str) -> dict[str, list[str]]:
    """Judgement -> shares of the labels, of the pretrained rows of a method."""
    by: dict[str, list[str]] = {"helped": [], "hurt": [], "not shown": []}
    for c in every:
        if c["method"] == method and c["init"] == "ssl":
            by[c["judgement"]].append(f"{100 * c['fraction']:g} %")
    return by


def _headline(by: dict[str, list[str]], method: str) -> tuple[str, str]:
    parts = []
    if by["helped"]:
        parts.append(f"it helped {method} at {_list(by['helped'])} of the labels")
    if by["hurt"]:
        parts.append(f"it hurt {'' if by['helped'] else method + ' '}at {_list(by['hurt'])}")
    if by["not shown"]:
        parts.append(f"no difference could be shown at {_list(by['not shown'])}")
    text = "; ".join(parts)
    if by["helped"] and not by["hurt"] and not by["not shown"]:
        return "yes", f"Pretraining was worth it: {text}."
    if by["helped"]:
        return "partly", f"Pretraining was worth it in part: {text}."
    if by["hurt"]:
        return "no", f"Pretraining was not worth it: {text}."
    return "not shown", f"Pretraining was not shown to be worth it: {text}."


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sentence(c: dict[str, Any]) -> str:
    weights = "pretrained" if c["init"] == "ssl" else f"given ({c['init']})"
    start = "from scratch" if c["method"] == "finetune" else "on random weights"
    note = {"helped": "", "hurt": ": worse", "not shown": ": not distinguishable"}[c["judgement"]]
    return (
        f"With {100 * c['fraction']:g} % of the labels ({c['n_labels']} images), {METHOD_WORDS[c['method']]} reaches "
        f"{100 * c['random_top1']:.1f} % {start} and {100 * c['top1']:.1f} % with {weights} weights: "
        f"{100 * c['gain']:+.1f} points (95 % interval {100 * c['low']:+.1f} to {100 * c['high']:+.1f}, "
        f"{c['n_seeds']} seeds){note}."
    )
