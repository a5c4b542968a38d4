"""Damaged annotations are scenes or one line, whatever was damaged: tried with generated damage."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_coco import image, make, thing
from test_voc import make as make_voc
from test_voc import xml

from softedge.detection import coco, voc
from softedge.errors import UserError

BOX = ("dog", (1, 1, 20, 20), 0)
XML = xml([BOX, ("cat", (2, 3, 9, 9), 1)]).encode()
JSON = json.dumps(
    {
        "images": [image(1), image(2)],
        "annotations": [thing(1), thing(2, on=2, iscrowd=1, segmentation={"size": [30, 40], "counts": [0, 300, 900]})],
        "categories": [{"id": 18, "name": "dog"}],
    }
).encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
once = settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
often = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Some bytes replaced, cut out or put in."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 30))] = draw(
            st.binary(max_size=12) | st.sampled_from([b"1e999", b"-", b"<", b"\x00"])
        )
    return bytes(data)


@st.composite
def odd_values(draw: st.DrawFn) -> bytes:
    """A COCO file in which a value, or a key, is another."""
    values = json.loads(JSON)
    part = values[draw(st.sampled_from(list(values)))]
    entry = draw(st.sampled_from(part))
    key = draw(st.sampled_from(list(entry)))
    if draw(st.booleans()):
        entry[key] = draw(VALUES)
    else:
        del entry[key]
    if draw(st.integers(0, 9)) == 0:
        values[draw(st.sampled_from(list(values)))] = draw(VALUES)
    return json.dumps(values).encode()


def read_voc(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        root = make_voc(Path(folder), {"train": {"x": [BOX], "z": [BOX]}, "val": {"y": [BOX]}})
        (root / "Annotations" / "x.xml").write_bytes(data)
        with contextlib.suppress(UserError):
            train, _ = voc.read(root)
            for scene in train.scenes:
                scene.trainable()


def read_coco(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        root = make(Path(folder), [image(1), image(2)], [thing(1)])
        (root / "annotations" / "instances_train2017.json").write_bytes(data)
        try:
            train, _ = coco.read(root)
            for scene in train.scenes:
                scene.trainable()
        except UserError as error:
            assert "\n" not in str(error)


@once
@given(damaged(XML))
def test_damaged_xml(data: bytes) -> None:
    read_voc(data)


@pytest.mark.slow
@often
@given(damaged(XML))
def test_many_damaged_xml_files(data: bytes) -> None:
    read_voc(data)


@once
@given(damaged(JSON) | odd_values())
def test_damaged_coco_files(data: bytes) -> None:
    read_coco(data)


@pytest.mark.slow
@often
@given(damaged(JSON) | odd_values())
def test_many_damaged_coco_files(data: bytes) -> None:
    read_coco(data)
