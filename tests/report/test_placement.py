from __future__ import annotations

import numpy as np
import pytest

from softedge.report.placement import Box, place, spread

FRAME = Box(0, 0, 900, 360)


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_a_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y), 7.0) for x, y in rng.uniform((40, 40), (860, 320), (18, 2))]
    boxes = place(points, [(100.0, 16.0)] * 18, FRAME)
    for i, box in enumerate(boxes):
        assert all(box.overlap(other) == 0 for other in boxes[i + 1 :])
        assert box.outside(FRAME) == pytest.approx(0, abs=1e-6)
        assert all(box.overlap(Box(x - r, y - r, x + r, y + r)) == 0 for x, y, r in points)


def test_nine_files_of_the_same_accuracy_get_nine_readable_labels() -> None:
    points = [(100.0 + 12 * i, 180.0, 8.0) for i in range(9)]
    boxes = place(points, [(90.0, 16.0)] * 9, FRAME)
    assert all(a.overlap(b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_lonely_point_has_its_label_right_beside_it() -> None:
    (box,) = place([(200.0, 100.0, 5.0)], [(60.0, 16.0)], FRAME)
    assert 205 < box.left < 215
    assert box.top < 100 < box.bottom


def test_names_at_the_end_of_lines_keep_their_distance_and_their_order() -> None:
    found = spread([100.0, 98.0, 20.0, 101.0], 16, 10, 105)
    assert found[2] == 20.0
    assert [found[1], found[0], found[3]] == [73.0, 89.0, 105]
