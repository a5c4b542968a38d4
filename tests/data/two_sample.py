"""Can a classifier tell two samples of views apart? At 0.5 it cannot: the same distribution, as far as it sees."""

from __future__ import annotations

import cv2
import numpy as np


def statistics(views: np.ndarray) -> np.ndarray:
    """What augmentation changes in a view, uint8 (N, S, S, 3) -> float32 (N, 44): colour moments and quantiles, energy
    of the differences at four scales, how saturated and how dark, left against right and top against bottom."""
    return np.stack([_statistics(view) for view in views]).astype(np.float32)


def _statistics(view: np.ndarray) -> list[float]:
    image = view.astype(np.float32)
    values: list[float] = []
    for channel in range(3):
        plane = image[..., channel]
        values += [plane.mean(), plane.std(), *np.quantile(plane[::2, ::2], [0.02, 0.25, 0.75, 0.98])]
    grey = image.mean(2)
    for _ in range(4):
        across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
        values += [np.abs(across).mean(), np.abs(down).mean(), np.sqrt((across**2).mean())]
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL).astype(np.float32)
    values += [hsv[..., 1].mean(), hsv[..., 1].std(), hsv[..., 2].min(), hsv[..., 2].max()]
    angle = hsv[..., 0] * (2 * np.pi / 256)
    values += [np.cos(angle).mean(), np.sin(angle).mean()]
    chroma = image.max(2) - image.min(2)
    values += [chroma.mean(), chroma.std(), (chroma == 0).mean(), (image == 0).mean(), (image == 255).mean()]
    # The share of even levels, and of level differences of one: rounding leaves its mark here.
    values += [(view & 1).mean(), (np.abs(np.diff(view.astype(np.int16), axis=1)) == 1).mean()]
    half = view.shape[1] // 2
    values += [image[:, :half].mean() - image[:, half:].mean()]
    return values


def auc(first: np.ndarray, second: np.ndarray, folds: int = 3, trees: int = 60) -> float:
    """Cross-validated area under the ROC curve of a boosted tree that tells ``first`` from ``second``."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    values = np.concatenate([first, second])
    labels = np.repeat([0, 1], [len(first), len(second)])
    classifier = HistGradientBoostingClassifier(max_iter=trees, max_leaf_nodes=15, learning_rate=0.1, random_state=0)
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    scores = cross_val_predict(classifier, values, labels, cv=parts, method="predict_proba")[:, 1]
    return float(roc_auc_score(labels, scores))
