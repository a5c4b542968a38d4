"""Average precision by COCO's definition (Lin et al. 2014), computed by faster-coco-eval on scenes of any format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softedge.detection.detections import Detections
from softedge.detection.masks import to_rle
from softedge.detection.scenes import Scene, Scenes

Kind = Literal["bbox", "segm"]
_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def ground_truth(scenes: Scenes) -> dict[str, Any]:
    """Scenes as a COCO instances file. VOC's difficult objects become crowds: neither found nor missed."""
    images = [{"id": s.id, "width": s.width, "height": s.height, "file_name": s.path.name} for s in scenes.scenes]
    annotations = [item for scene in scenes.scenes for item in _annotations(scene)]
    for number, item in enumerate(annotations, start=1):  # ids of the file may repeat; 0 would read as "no match"
        item["id"] = number
    categories = [{"id": number, "name": name} for number, name in enumerate(scenes.classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def _annotations(scene: Scene) -> list[dict[str, Any]]:
    items = []
    masks = scene.masks or (None,) * len(scene.boxes)
    for box, label, area, ignored, mask in zip(
        scene.boxes.tolist(), scene.labels.tolist(), scene.area.tolist(), scene.crowd | scene.difficult, masks
    ):
        item = {
            "image_id": scene.id,
            "category_id": label + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": area,
            "iscrowd": int(ignored),
        }
        if mask is not None:
            item["segmentation"] = to_rle(mask, scene.height, scene.width)
        items.append(item)
    return items


def results(scenes: Scenes, predictions: Sequence[Detections], kind: Kind) -> list[dict[str, Any]]:
    """Detections as a COCO results file."""
    rows = []
    for scene, detections in zip(scenes.scenes, predictions, strict=True):
        for i, (box, score, label) in enumerate(
            zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
        ):
            row: dict[str, Any] = {"image_id": scene.id, "category_id": label + 1, "score": score}
            if kind == "bbox":
                row["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            else:
                row["segmentation"] = detections.masks[i]
            rows.append(row)
    return rows


def coco_ap(scenes: Scenes, predictions: Sequence[Detections], kind: Kind = "bbox") -> dict[str, Any]:
    """AP (mean over IoU .50:.05:.95), AP50, AP75 and AP by size as fractions, and AP50 of each class.

    Classes without an object in ``scenes`` are left out; a number that is not defined (no small object) is absent.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    rows = results(scenes, predictions, kind)
    if not rows:  # the libraries refuse an empty list of results
        present = [name for name, count in scenes.per_class().items() if count]
        return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "AP50_per_class": dict.fromkeys(present, 0.0)}
    truth = COCO(ground_truth(scenes))
    evaluation = COCOeval_faster(truth, truth.loadRes(rows), kind, print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values: dict[str, Any] = {name: float(v) for name, v in zip(_NAMES, evaluation.stats[:6]) if v > -1}
    precision = np.asarray(evaluation.eval["precision"])[0, :, :, 0, -1]  # IoU .5, recall, class, all sizes, 100
    per_class = {name: _mean(precision[:, number]) for number, name in enumerate(scenes.classes)}
    values["AP50_per_class"] = {name: value for name, value in per_class.items() if not math.isnan(value)}
    return values


def _mean(precision: NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else math.nan
