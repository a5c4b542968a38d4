"""``preprocessor_config.json`` and ``config.json`` beside a file of weights or a model: images and class names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from softedge.errors import UserError
from softedge.weights.class_names import class_names, refuse_other_count
from softedge.weights.preprocessing import beside

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIDES, CONVNEXT = {"height": 224, "width": 224}, "ConvNextImageProcessor"
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def preprocessor(folder, **content):
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return beside(folder / "model.safetensors", None)


@pytest.mark.parametrize(
    ("content", "factor", "offset"),
    [
        ({"do_rescale": True, "rescale_factor": 1 / 255, **IMAGENET}, 1 / 255, 0),
        ({"do_normalize": True, **HALF}, 1 / 255, 0),  # as feature extractors wrote it, before there was a factor
        ({"do_rescale": True, "rescale_factor": 1 / 127.5, "rescale_offset": True, **HALF}, 1 / 127.5, 1),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, 1, 0),
        ({"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False, **IMAGENET}, 1 / 255, 0),
    ],
)
def test_normalisation_is_that_of_transformers_whatever_its_factor(tmp_path, content, factor, offset):
    """rescale, then normalize, by hand."""
    pixels = np.arange(0, 256, 5.0)[:, None]
    values = pixels * factor - offset
    if content.get("do_normalize", True):
        values = (values - content["image_mean"]) / content["image_std"]
    found = preprocessor(tmp_path, **content)
    assert np.abs((pixels / 255 - found.mean) / found.std - values).max() < 1e-4
    assert found.origin == f"from {tmp_path / 'preprocessor_config.json'}"


@pytest.mark.parametrize(
    ("content", "size", "crop", "words"),
    [
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": SIDES}, 224, 0.875, ""),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, 224, 0.875, "squashed"),
        ({"size": {"height": 192, "width": 192}}, 192, 1.0, ", but there images were squashed to a square"),
        ({"size": {"height": 96, "width": 192}}, 192, 1.0, ", but there images had 96 x 192 pixels"),
        ({"image_processor_type": CONVNEXT, "size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, 0.875, ""),
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": {"shortest_edge": 384}}, 384, 1.0, "squashed"),
        ({"size": {"shortest_edge": 64}, "resample": 0}, 64, 1.0, "'nearest' is not done here"),
        ({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224}, "do_center_crop": True,
          "crop_size": SIDES}, 224, 0.875, ""),
    ],
)  # fmt: skip
def test_size_and_crop_are_those_of_transformers_or_a_line_says_how_not(tmp_path, content, size, crop, words):
    found = preprocessor(tmp_path, **IMAGENET, **content)
    assert (found.size, found.crop) == (size, crop) and words in found.origin
    assert words or found.origin.endswith(".json")


def test_resampling_has_the_numbers_of_pillow(tmp_path):
    for kind in ("bilinear", "bicubic"):
        found = preprocessor(tmp_path, resample=int(getattr(Image.Resampling, kind.upper())), **HALF)
        assert found.interpolation == kind


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            {"do_flip_channel_order": True, "do_rescale": True},
            "do_flip_channel_order = true, channels in the order blue",
        ),
        ({"include_top": True, **HALF}, "include_top = true, a second normalisation, is not done here"),
        ({"do_normalize": True}, "do_normalize = true, and no image_mean"),
        ({"size": {"longest_edge": 512}, **HALF}, "size is {'longest_edge': 512}; height and width, or shortest_edge"),
        ({"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}, "mean and std need three values, or one"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(tmp_path, content, line):
    with pytest.raises(
        UserError, match=r"preprocessor_config.json cannot be read as settings of weights \(.*"
    ) as error:
        preprocessor(tmp_path, **content)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_the_settings_of_timms_networks_in_transformers_are_timms(tmp_path):
    stated = {
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "input_size": [3, 96, 96],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
    }
    found = preprocessor(tmp_path, image_processor_type="TimmWrapperImageProcessor", pretrained_cfg=stated)
    assert (found.mean, found.std, found.size, found.crop) == ((0.5,) * 3, (0.25,) * 3, 96, 0.8)


def test_it_comes_before_config_json_which_is_read_where_it_says_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}))
    assert preprocessor(tmp_path, **HALF).mean == (0.5,) * 3
    assert preprocessor(tmp_path, image_processor_type="Some").mean == (0.0,) * 3
    (tmp_path / "onnx").mkdir()
    assert beside(tmp_path / "onnx/model.onnx", None).mean == (0.0,) * 3, "as the hub keeps a model in a folder onnx"


@pytest.mark.parametrize(
    "content",
    [
        {"label_names": ["ant", "bee"]},
        {"pretrained_cfg": {"label_names": ["ant", "bee"]}},
        {"label_names": {"1": "bee", "0": "ant"}},
        {"id2label": {"0": "ant", "1": "bee"}, "label2id": {"ant": 0, "bee": 1}},
        {"label2id": {"bee": 1, "ant": 0}},
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"ant": "0", "bee": "1"}},
    ],
)
def test_class_names_in_any_form_are_in_the_order_of_the_classifier(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert class_names(tmp_path / "model.onnx") == (("ant", "bee"), tmp_path / "config.json")


def test_numbers_in_place_of_names_and_another_architecture_name_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    assert class_names(tmp_path / "model.onnx") is None
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "label_names": ["a", "b"]}))
    assert class_names(tmp_path / "model.onnx", "resnet34") is None
    assert class_names(tmp_path / "other" / "model.onnx") is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"id2label": {"0": "ant", "2": "bee"}}, "id2label does not number the classes from 0 to 1"),
        ({"label_names": ["ant", 3]}, "label_names is no list of names"),
        ({"label2id": ["ant"]}, "label2id does not map names to numbers"),
        ({"id2label": {"first": "ant"}}, "invalid literal for int"),
    ],
)
def test_class_names_that_are_none_are_one_line(tmp_path, content, line):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"has no class names that can be read .{line}") as error:
        class_names(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)


def test_names_of_another_number_of_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="config.json names 2 classes, and model.onnx has 5; give --labels"):
        refuse_other_count(("a", "b"), tmp_path / "config.json", tmp_path / "model.onnx", 5)
