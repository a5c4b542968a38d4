"""Comparing outputs, and naming the layer where a file departs from PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from softedge.eval.measures import compare, farthest, sqnr_db
from softedge.export import parity
from softedge.export.base import open_format
from softedge.export.deployed import Deployed
from softedge.export.onnx.format import Onnx
from softedge.export.tolerance import BY_PRECISION, of
from softedge.records import InputSpec


def test_difference_agreement_and_sqnr_are_those_of_a_closed_form():
    logits = np.array([[2.0, 0.0, -2.0], [0.0, 1.0, -1.0]])
    noisy = logits + np.array([[0.2, -0.1, -0.1], [0.0, 0.0, 0.0]])
    softmax = lambda z: (np.exp(z) / np.exp(z).sum(1, keepdims=True)).astype(np.float32)  # noqa: E731
    found = parity.compare(softmax(noisy), softmax(logits))
    assert found.max_abs_diff == pytest.approx(np.abs(softmax(noisy) - softmax(logits)).max())
    assert found.agreement == 1.0
    assert sqnr_db(logits[:1], noisy[:1])[0] == pytest.approx(10 * np.log10(8 / 0.06), abs=1e-4)
    assert sqnr_db(logits[1:], noisy[1:])[0] == pytest.approx(140)
    assert found.sqnr_db == pytest.approx((10 * np.log10(8 / 0.06) + 140) / 2, abs=2)
    assert parity.compare(np.full_like(softmax(logits), np.nan), softmax(logits)).agreement == 0


def test_nan_counts_as_infinitely_different():
    assert parity.difference(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]])) == np.inf


def features(noise_db: float, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 64) and the same with noise of that many dB on every image."""
    rng = np.random.default_rng(0)
    clean, noise = rng.random((n, 64)).astype(np.float32), rng.standard_normal((n, 64))
    noise *= np.linalg.norm(clean, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return clean, (clean + noise * 10 ** (-noise_db / 20)).astype(np.float32)


def refusal(reference: np.ndarray, actual: np.ndarray, precision: str, output: str) -> str:
    allowed = of(BY_PRECISION[precision], output)
    found = compare(reference, actual, None, output) | farthest(reference, actual, output, allowed.parity)
    return parity.refusal(found, precision, output, allowed)


def test_fp16_features_are_judged_by_their_noise_and_fp32_ones_by_the_largest_difference():
    clean, noisy = features(30)
    assert parity.difference(noisy, clean, "features") > 0.05  # more than a probability may differ by
    assert refusal(clean, noisy, "fp16", "features") == ""
    assert refusal(*features(24), "fp16", "features") == "SQNR 24.0 dB of features is below 25 dB"
    assert refusal(clean, noisy, "fp32", "features").startswith("relative_diff 0.06")
    assert refusal(*features(100), "fp32", "features") == ""


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return (exponents / exponents.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "spared"), [(100, 1), (250, 2)])
def test_fp16_may_be_far_on_one_near_tie_in_a_hundred_images_and_fp32_on_none(n, spared):
    """A probability of 0.5 moves by 0.05 with logits that move by 0.1, of 20: 40 dB."""
    exact = np.random.default_rng(0).normal(0, 1, (n, 5))
    exact[:, 0] += 20
    exact[:10, 1] = exact[:10, 0]

    def far(images: int) -> np.ndarray:
        noisy = exact.copy()
        noisy[:images, 1] += 0.2
        return softmax(noisy)

    assert np.abs(far(1) - softmax(exact)).max() == pytest.approx(0.05, abs=1e-3)
    assert refusal(softmax(exact), far(spared), "fp16", "probabilities") == ""
    more = refusal(softmax(exact), far(spared + 2), "fp16", "probabilities")
    assert more.startswith("p99_abs_diff 0.0") and more.endswith("is above the tolerance 0.02")
    assert refusal(softmax(exact), far(1), "fp32", "probabilities").startswith("max_abs_diff 0.0")


@pytest.mark.parametrize("n", [100, 1000])
def test_a_finite_overflow_on_a_single_image_of_many_refuses_an_fp16_file(n):
    exact = np.random.default_rng(0).normal(0, 1, (n, 5))
    exact[:, 0] += 20
    over = exact.copy()
    over[n // 2, 0] -= 25  # an activation beyond 65504 that the next clip made finite
    said = refusal(softmax(exact), softmax(over), "fp16", "probabilities")
    assert said.startswith("SQNR ") and said.endswith(
        "of one image is below 25 dB: more than half precision rounds off"
    )
    clean, noisy = features(60, n)
    one = np.where(np.arange(n)[:, None] < 1, 0, noisy)
    assert "of one image is below 25 dB" in refusal(clean, one, "fp16", "features")
    clean[0] /= 1000  # nearly black: the noise of rounding is that of the other images
    faint = noisy.copy()
    faint[0] = clean[0] + (noisy[1] - clean[1])
    assert sqnr_db(clean, faint)[0] < 25 and refusal(clean, faint, "fp16", "features") == ""
    assert refusal(clean, np.where(np.arange(n)[:, None] < n // 30, 0, noisy), "fp16", "features").startswith("SQNR")


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("n", [5, 40, 70])
def test_one_near_tie_of_few_images_is_no_failure_of_an_fp16_file_and_an_overflow_is(n, classes):
    """Logits in the tens with noise of 0.2, 40 dB: sure images do not move, the answer of the tie does."""
    rng = np.random.default_rng(n)
    answer = rng.integers(classes, size=n)
    exact = rng.normal(0, 1, (n, classes))
    exact[np.arange(n), answer] += 20
    exact[0, :2] = exact[0].max() + np.array([0.05, 0])  # the tie
    noisy = exact.copy()
    noisy[0, :2] += [-0.1, 0.1]
    reference, actual = softmax(exact), softmax(noisy)
    assert reference[0].argmax() != actual[0].argmax() and np.abs(reference - actual).max() > 0.02
    assert refusal(reference, actual, "fp16", "probabilities") == ""
    assert refusal(reference, actual, "fp32", "probabilities").startswith("max_abs_diff 0.0")
    for image in (0, 1):  # an activation beyond 65504, finite after the next clip: the answer's evidence is gone
        over = noisy.copy()
        over[image, exact[image].argmax()] -= 25
        assert refusal(reference, softmax(over), "fp16", "probabilities").startswith(("SQNR", "p99_abs_diff"))
    exact[1, :2] = exact[1].max() + np.array([0.05, 0])
    noisy[1] = exact[1] + np.array([-0.1, 0.1] + [0] * (classes - 2))
    assert refusal(softmax(exact), softmax(noisy), "fp16", "probabilities").startswith("p99_abs_diff")  # two are more


def test_the_farthest_of_a_single_image_is_not_spared():
    assert farthest(np.float32([[0.51, 0.49]]), np.float32([[0.48, 0.52]]), "probabilities") == {}
    assert refusal(np.float32([[0.51, 0.49]]), np.float32([[0.48, 0.52]]), "fp16", "probabilities")


@pytest.mark.parametrize("output", ["features", "probabilities", "scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_output_that_is_no_finite_number_is_refused(output, value):
    clean, noisy = features(80, 200)
    noisy[7, 3] = value
    assert refusal(clean, noisy, "fp16", output) == "some outputs are no finite numbers"


def test_first_departure_names_the_layer_whose_weights_were_damaged(deployed, pictures, tmp_path):
    target = Onnx()
    artifact = target.convert(deployed, "fp32", pictures[:0], tmp_path)

    def layers(images):
        return target.layer_outputs(artifact, images, deployed)

    assert parity.first_departure(deployed, layers, pictures[:1], limit=1e-3) is None
    model = onnx.load(artifact.path)
    tensor = next(t for t in model.graph.initializer if "depthwise" in t.name and "weight" in t.name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
    onnx.save(model, artifact.path)
    named = parity.first_departure(deployed, layers, pictures[:1], limit=1e-3)
    assert named is not None and named.startswith("model.depthwise.0 ")


@pytest.mark.parametrize("name", ["openvino", "coreml"])
def test_a_departure_is_named_in_every_format(deployed, pictures, tmp_path, name):
    pytest.importorskip({"openvino": "openvino", "coreml": "coremltools"}[name])
    target = open_format(name)
    artifact = target.convert(deployed, "fp32", pictures[:0], tmp_path)

    def layers(images):
        return target.layer_outputs(artifact, images, spoilt)

    spoilt = deployed
    assert len(list(layers(pictures[:1]))) == 7
    assert parity.first_departure(spoilt, layers, pictures[:1], limit=1e-3) is None
    spoilt = copy.deepcopy(deployed)  # the file is right and the network was changed: the same difference
    spoilt.traced.clear()
    with torch.no_grad():
        spoilt.model.reduce.weight *= 1.5
    named = parity.first_departure(spoilt, layers, pictures[:1], limit=1e-3)
    assert named is not None and named.startswith("model.reduce ")


def test_reference_layers_are_kept_before_an_activation_in_place_overwrites_them(pictures):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 3)
    net = torch.nn.Sequential(conv, torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 2))
    network = Deployed(net, InputSpec(16, 16, (0.5,) * 3, (0.5,) * 3), ("a", "b"))
    actual = parity.reference_layers(network, pictures[:1])["model.0"]
    planes = torch.from_numpy(pictures[:1]).permute(0, 3, 1, 2).float()
    expected = conv(network.normalised(planes)).detach().numpy()
    assert expected.min() < 0 and np.allclose(actual, expected, atol=1e-5)
