"""What is said of one thing and of several."""

from __future__ import annotations

import pytest

from softedge.detection.counting import counted
from softedge.detection.planning import TransferPlan


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("images are not there and are left out", "image is not there and is left out"),
        ("pictures list an object twice: both count", "picture lists an object twice: both count"),
        (
            "photos are turned by Exif, their boxes were not: turned",
            "photo is turned by Exif, its boxes were not: turned",
        ),
        ("boxes have no area: not learnt, counted as missed", "box has no area: not learnt, counted as missed"),
        ("boxes are not those around their masks: both are used", "box is not the one around its mask: both are used"),
        ("masks have polygons of less than three corners: ...", "mask has polygons of less than three corners: ..."),
        (
            "annotations cannot be read and their images are left out: no XML",
            "annotation cannot be read and its image is left out: no XML",
        ),
        (
            "training pictures nearly duplicate test pictures and are not trained on",
            "training picture nearly duplicates test pictures and is not trained on",
        ),
        (
            "photos are turned by Exif and nothing says whether the boxes are, too: taken as drawn",
            "photo is turned by Exif and nothing says whether the boxes are, too: taken as drawn",
        ),
        (
            "pictures have another size than their annotations say: boxes are",
            "picture has another size than its annotation says: boxes are",
        ),
        ("of them have other objects there: one is wrong", "of them has other objects there: one is wrong"),
        ("listed images are not in JPEGImages/ and are left out", "listed image is not in JPEGImages/ and is left out"),
        ("objects share an id with another: counted", "object shares an id with another: counted"),
        (
            "annotations could be of several and do not say which: a",
            "annotation could be of several and does not say which: a",
        ),
    ],
)
def test_kinds_are_worded_for_one_and_for_several(kind, one):
    assert (counted(1, kind), counted(2, kind)) == (f"1 {one}", f"2 {kind}")


def test_a_plan_of_one_iteration_is_worded_for_one():
    plan = TransferPlan("ssdlite", 320, 16, 425, 1, 16.0, "cpu")
    first, second = plan.lines(39)
    assert first == "ssdlite at 320 pixels, 1 iteration of 16 pictures (less than one pass), about 16 s on this CPU"
    assert second.startswith("425 iterations would suit 39 pictures and take 1.9 h")
