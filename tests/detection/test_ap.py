"""Average precision: against pycocotools on the same detections, and against hand-written loops."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from softedge.detection.coco_ap import coco_ap, ground_truth, results
from softedge.detection.detections import Detections
from softedge.detection.masks import decode, to_rle
from softedge.detection.scenes import Scene, Scenes
from softedge.detection.voc_ap import average_precision, overlap, voc_ap

SIDE = 100


def scene(number: int, boxes, labels, difficult=(), crowd=()) -> Scene:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    n = len(boxes)
    flags = [np.isin(np.arange(n), list(chosen)) for chosen in (crowd, difficult)]
    masks = tuple([[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist())
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return Scene(number, Path(f"{number}.jpg"), SIDE, SIDE, boxes, np.array(labels, np.int64), area, *flags, masks)


def detections(boxes, scores, labels) -> Detections:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = []
    for x1, y1, x2, y2 in boxes.round().astype(int).clip(0, SIDE):
        bitmap = np.zeros((SIDE, SIDE), np.uint8, order="F")
        bitmap[y1:y2, x1:x2] = 1
        masks.append(bitmap)
    rles = tuple(to_rle_of(bitmap) for bitmap in masks)
    return Detections(boxes, np.array(scores, np.float32), np.array(labels, np.int64), rles)


def to_rle_of(bitmap):
    from faster_coco_eval import mask

    return mask.encode(bitmap)


def random_world(seed: int, n: int = 25) -> tuple[Scenes, list[Detections]]:
    """Objects of three classes (a fourth has none), detections near them and elsewhere, crowds, empty images."""
    rng = np.random.default_rng(seed)
    scenes, found = [], []
    for number in range(1, n + 1):
        count = int(rng.integers(0, 6))
        corner = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], 1)
        labels = rng.integers(0, 3, count)
        crowd = np.flatnonzero(rng.random(count) < 0.15)
        scenes.append(scene(number, boxes, labels, crowd=crowd))
        near = boxes + rng.normal(0, 3, boxes.shape)
        extra = rng.uniform(0, 50, (3, 2))
        guess = np.concatenate([near, near + 1, np.concatenate([extra, extra + rng.uniform(5, 50, (3, 2))], 1)])
        guess_labels = np.concatenate([labels, labels, rng.integers(0, 3, 3)])
        found.append(detections(guess, rng.random(len(guess)), guess_labels))
    return Scenes(("a", "b", "c", "never"), tuple(scenes), masks=True), found


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coco_ap_equals_pycocotools_on_the_same_detections(kind, seed):
    pycocotools = pytest.importorskip("pycocotools")
    assert pycocotools
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    scenes, found = random_world(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth(scenes)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results(scenes, found, kind)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = coco_ap(scenes, found, kind)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    for name, value in zip(names, evaluation.stats):
        assert ours.get(name, -1) == pytest.approx(value, abs=1e-9), name
    assert 0.03 < ours["AP"] < ours["AP50"] < 1
    assert set(ours["AP50_per_class"]) == {"a", "b", "c"}
    assert np.mean(list(ours["AP50_per_class"].values())) == pytest.approx(ours["AP50"])


def test_perfect_detections_score_one_and_none_scores_zero():
    boxes = [[10, 10, 50, 50], [60, 60, 90, 90]]
    scenes = Scenes(("a", "b"), (scene(1, boxes, [0, 1]), scene(2, [], [])), masks=True)
    perfect = [detections(boxes, [0.9, 0.8], [0, 1]), detections([], [], [])]
    nothing = [detections([], [], []), detections([], [], [])]
    assert coco_ap(scenes, perfect)["AP"] == pytest.approx(1) and coco_ap(scenes, perfect, "segm")["AP"] == 1
    assert coco_ap(scenes, nothing)["AP"] == 0
    assert voc_ap(scenes, perfect) == dict.fromkeys(["voc07_AP", "voc07_AP50", "voc07_AP75", "voc12_AP50"], 1.0)
    assert voc_ap(scenes, nothing)["voc12_AP50"] == 0


def test_difficult_objects_and_crowds_count_neither_way():
    boxes = [[10, 10, 50, 50], [60, 60, 90, 90]]
    missed = [detections(boxes[:1], [0.9], [0])]
    taken = [detections(boxes, [0.8, 0.9], [0, 0])]
    for flags in ({"difficult": [1]}, {"crowd": [1]}):
        scenes = Scenes(("a",), (scene(1, boxes, [0, 0], **flags),))
        for found in (missed, taken):
            assert voc_ap(scenes, found)["voc12_AP50"] == 1.0
            assert coco_ap(scenes, found)["AP50"] == pytest.approx(1.0)


def test_a_second_detection_of_an_object_is_wrong():
    scenes = Scenes(("a",), (scene(1, [[10, 10, 50, 50], [60, 60, 90, 90]], [0, 0]),))
    twice = [detections([[10, 10, 50, 50], [10, 10, 50, 51], [60, 60, 90, 90]], [0.9, 0.8, 0.7], [0, 0, 0])]
    # Precision 1 up to recall 1/2, then 2/3 at recall 1: area 1/2 + 1/3; six levels of 1 and five of 2/3.
    assert voc_ap(scenes, twice)["voc12_AP50"] == pytest.approx(1 / 2 + 1 / 3)
    assert voc_ap(scenes, twice)["voc07_AP50"] == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_voc_overlap_counts_whole_pixels_as_the_devkit_does():
    def devkit(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0]) + 1
        height = min(a[3], b[3]) - max(a[1], b[1]) + 1
        inside = max(width, 0) * max(height, 0)
        size = lambda r: (r[2] - r[0] + 1) * (r[3] - r[1] + 1)  # noqa: E731
        return inside / (size(a) + size(b) - inside)

    a, b = (11, 21, 30, 50), (15, 30, 44, 61)  # 1-based inclusive, as in the xml
    read = [np.array([x1 - 1, y1 - 1, x2, y2], np.float32) for x1, y1, x2, y2 in (a, b)]
    assert overlap(read[0], read[1][None])[0] == pytest.approx(devkit(a, b))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_loops_written_from_the_definition(seed):
    rng = np.random.default_rng(seed)
    hits = rng.random(30) < 0.5
    recall = hits.cumsum() / 20
    precision = hits.cumsum() / np.arange(1, 31)

    def best_from(level):
        return max((p for p, r in zip(precision, recall) if r >= level - 1e-12), default=0.0)

    eleven = sum(best_from(t / 10) for t in range(11)) / 11
    area, before = 0.0, 0.0
    for r in recall:
        area += (r - before) * best_from(r)
        before = r
    assert average_precision(precision, recall, "11-point") == pytest.approx(eleven)
    assert average_precision(precision, recall, "area") == pytest.approx(area)


def test_polygons_and_both_run_length_codes_are_the_same_mask():
    polygon = [[10.0, 20.0, 60.0, 20.0, 60.0, 70.0, 10.0, 70.0]]
    bitmap = np.zeros((100, 80), np.uint8)
    bitmap[20:70, 10:60] = 1
    column_major = bitmap.flatten(order="F")
    edges = np.flatnonzero(np.diff(column_major)) + 1
    counts = np.diff(np.concatenate([[0], edges, [column_major.size]])).tolist()
    for mask in (polygon, {"size": [100, 80], "counts": counts}, to_rle(polygon, 100, 80)):
        assert (decode(mask, 100, 80) == bitmap).all()
    assert decode(None, 100, 80).sum() == 0
