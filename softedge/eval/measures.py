"""How far a converted model is from PyTorch fp32 on the same images: the one agreement and the one SQNR.

NumPy alone, so that a board can import it; labels are optional.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Labels = NDArray[np.int64]

FLOOR = 1e-6  # probabilities below it are rounding noise in half precision (its smallest step is 6e-8)
PRESENT = 0.5  # a score from which on its label is present
ALIKE = 20  # images whose noise stands for the noise of one of them
SQNR_CAP_DB = 140.0  # of two float32 computations of the same function


def centred_logits(probabilities: Float32) -> NDArray[np.float64]:
    """Logits up to their mean, from probabilities (N, C): z_c = log max(p_c, 1e-6) - mean over c."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), FLOOR))
    return logs - logs.mean(axis=1, keepdims=True)


def sqnr_db(reference: NDArray[np.floating], actual: NDArray[np.floating]) -> NDArray[np.float64]:
    """Signal to quantization noise per row, 10 log10(||r||^2 / ||a - r||^2) in dB, at most 140.

    The median over images is what to report: the mean is dominated by a few outliers.
    """
    reference, actual = reference.reshape(len(reference), -1), actual.reshape(len(actual), -1)
    signal = np.square(reference, dtype=np.float64).sum(axis=1)
    noise = np.square(actual.astype(np.float64) - reference).sum(axis=1)
    floor = np.maximum(signal, 1e-30) * 10 ** (-SQNR_CAP_DB / 10)
    return 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, floor))


def score_logits(scores: Float32) -> NDArray[np.float64]:
    """Logits from sigmoid scores (N, C): z_c = log(s_c / (1 - s_c)), s within [1e-6, 1 - 1e-6]."""
    kept = np.clip(scores.astype(np.float64), FLOOR, 1 - FLOOR)
    return np.log(kept) - np.log1p(-kept)


def comparable(outputs: Float32, output: str) -> NDArray[np.floating]:
    """What ``sqnr_db`` compares: centred logits of probabilities (N, C), logits of scores, features as they are."""
    if output == "scores":
        return score_logits(outputs)
    return centred_logits(outputs) if output == "probabilities" else outputs


def saturated(outputs: Float32, output: str) -> float:
    """The share of images whose noise cannot be seen: all of their probabilities but one, or all of their scores, are
    cut off at 1e-6 in ``comparable``."""
    return float((_seen(outputs, output).sum(axis=1) <= (output == "probabilities")).mean())


def cut_off(outputs: Float32, output: str) -> float:
    """The share of probabilities or scores (N, C) that ``comparable`` cuts off at 1e-6."""
    return float(1 - _seen(outputs, output).mean())


def _seen(outputs: Float32, output: str) -> NDArray[np.bool_]:
    if output == "features":
        return np.ones(outputs.shape, bool)
    return outputs > FLOOR if output == "probabilities" else (outputs > FLOOR) & (outputs < 1 - FLOOR)


def median_sqnr_db(reference: Float32, actual: Float32, output: str) -> float:
    """The SQNR that is reported, in dB: the median over images, see ``comparable``."""
    return float(np.median(sqnr_db(comparable(reference, output), comparable(actual, output))))


def same_answer(reference: Float32, actual: Float32, output: str = "probabilities") -> NDArray[np.bool_]:
    """Which images (N,) have the same answer: the same top-1; of scores the same decision, s >= 0.5, on every label.

    An answer that is not finite agrees with nothing.
    """
    if output == "scores":
        same = ((reference >= PRESENT) == (actual >= PRESENT)).all(axis=1)
    else:
        same = reference.argmax(1) == actual.argmax(1)
    finite: NDArray[np.bool_] = same & np.isfinite(actual).all(axis=1)
    return finite


def agreement(reference: Float32, actual: Float32, output: str = "probabilities") -> float:
    """Share of images with the same answer (``same_answer``)."""
    return float(same_answer(reference, actual, output).mean())


def expected_agreement(reference: Float32, actual: Float32) -> tuple[float, float]:
    """How often images like these keep their answer, and the standard error of that over the images.

    reference, actual: probabilities (N, C), N and C at least 2, of images that the network was not trained on.  Of a
    few hundred images a few change their answer, and a count of them is mostly chance.  An image changes it where noise
    takes its margin, the logit of the answer less the largest other logit, below 0: here the margin of each image meets
    the noise of the ``ALIKE`` images whose margins are nearest to it, with either sign.  Of those alone, since noise is
    larger where a network is unsure.  An answer that is not finite counts as changed.
    """
    finite = np.isfinite(actual).all(axis=1)
    changed = np.ones(len(reference))
    if finite.any():
        logits, noisy = centred_logits(reference[finite]), centred_logits(actual[finite])
        answers = logits.argmax(1)
        margin = _margin(logits, answers)
        order = np.argsort(margin, kind="stable")
        margin, noise = margin[order], (_margin(noisy, answers) - margin)[order]
        alike = min(ALIKE, len(margin))
        first = np.clip(np.arange(len(margin)) - alike // 2, 0, len(margin) - alike)
        near = noise[first[:, None] + np.arange(alike)]
        changed[np.flatnonzero(finite)[order]] = (np.abs(near) > margin[:, None]).mean(axis=1) / 2
    return float(1 - changed.mean()), float(changed.std() / math.sqrt(len(changed)))


def _margin(logits: NDArray[np.float64], answers: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logit (N,) of the answer less the largest of the others."""
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, answers] = -np.inf
    margin: NDArray[np.float64] = logits[rows, answers] - others.max(axis=1)
    return margin


def knn_overlap(reference: Float32, actual: Float32, k: int = 10) -> float:
    """Mean share of each image's k nearest other images (by cosine) that stays the same, 0 to 1.

    reference, actual: (N, D) features or centred logits of the same images. Needs no labels.
    """
    if len(reference) < 3:
        return math.nan
    reference, actual = reference[:2000], actual[:2000]  # pairwise: 32 MB of similarities
    k = min(k, len(reference) - 2)
    near = [_neighbours(x, k) for x in (reference, actual)]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(*near)]))


def unit(features: NDArray[np.floating]) -> NDArray[Any]:
    """Rows (N, D) of unit length."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _neighbours(features: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    directions = unit(features)
    similarity = directions @ directions.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argpartition(-similarity, k, axis=1)[:, :k]


@np.errstate(divide="ignore", invalid="ignore")
def farthest(reference: Float32, actual: Float32, output: str, beyond: float | None = None) -> dict[str, float]:
    """The noise of the images that a rule on most of the images may spare; {} of one image.

    far_sqnr_db: the least signal to noise of the images whose probabilities or scores differ by more than ``beyond``
    (where none does, of the one that differs most), or of all by their features.  The signal is the image's own or the
    median of all, whichever is larger: an image's own is next to nothing where two classes tie.
    next_abs_diff: the second largest difference of probabilities or scores.
    """
    if len(reference) < 2:
        return {}
    difference = np.abs(actual - reference).max(axis=1)
    exact, noisy = comparable(reference, output), comparable(actual, output)
    signal = np.square(exact.astype(np.float64)).sum(axis=1)
    noise = np.square(noisy.astype(np.float64) - exact).sum(axis=1)
    decibels = 10 * np.log10(np.maximum(signal, max(np.median(signal), 1e-30)) / np.maximum(noise, 1e-30))
    decibels[~np.isfinite(noise)] = -np.inf
    far = np.ones(len(difference), bool)
    if output != "features":
        far = difference > (difference.max() if beyond is None else beyond)
        far[difference.argmax()] = True
    least = {"far_sqnr_db": min(float(decibels[far].min()), SQNR_CAP_DB)}
    return least if output == "features" else {"next_abs_diff": float(np.sort(difference)[-2]), **least}


@np.errstate(divide="ignore", invalid="ignore")  # of infinite outputs: the measures say so
def compare(reference: Float32, actual: Float32, labels: Labels | None, output: str) -> dict[str, float | int]:
    """Measures of ``actual`` (N, C) against ``reference`` (N, C) on the same N images.

    output: "probabilities", "scores" or "features".  labels: class index per image, None or all negative when unknown;
    not used for scores, where an image has any number of labels.  ``distance`` is the mean total variation distance of
    the probabilities, the mean absolute difference of scores, or the mean cosine distance of features.
    ``label_agreement``: of scores, the share of all decisions that stay the same.  ``relative_diff``: of features,
    relative to the largest.  ``p1_sqnr_db``: of features, what all images but one in a hundred have.
    """
    difference = np.abs(actual - reference).max(axis=1)
    measures: dict[str, float | int] = {
        "n": len(reference),
        "max_abs_diff": float(difference.max()),
        "p99_abs_diff": float(np.quantile(difference, 0.99)),
    }
    if output == "features":
        norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(actual, axis=1)
        cosine = (reference * actual).sum(axis=1) / np.maximum(norms, 1e-12)
        measures["distance"] = float(1 - cosine.mean())
        measures["relative_diff"] = float(difference.max() / max(float(np.abs(reference).max()), 1e-12))
        noise = sqnr_db(reference, actual)
        measures["sqnr_db"], measures["p1_sqnr_db"] = float(np.median(noise)), float(np.quantile(noise, 0.01))
        measures["knn_overlap"] = knn_overlap(reference, actual)
        return measures
    if output == "scores":
        measures["distance"] = float(np.abs(actual - reference).mean())
        measures["agreement"] = agreement(reference, actual, output)
        measures["label_agreement"] = float(((reference >= PRESENT) == (actual >= PRESENT)).mean())
        measures["sqnr_db"] = median_sqnr_db(reference, actual, output)
        return measures
    logits, actual_logits = centred_logits(reference), centred_logits(actual)
    measures["distance"] = float(np.abs(actual - reference).sum(axis=1).mean() / 2)
    measures["agreement"] = agreement(reference, actual)
    measures["sqnr_db"] = median_sqnr_db(reference, actual, output)
    measures["knn_overlap"] = knn_overlap(logits.astype(np.float32), actual_logits.astype(np.float32))
    known = labels is not None and len(labels) > 0 and bool((labels >= 0).all())
    if known:
        assert labels is not None
        measures["top1"] = float((actual.argmax(1) == labels).mean())
        measures["top1_fp32"] = float((reference.argmax(1) == labels).mean())
        measures["drop"] = measures["top1_fp32"] - measures["top1"]
    return measures
