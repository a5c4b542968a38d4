"""Core ML files read back from disk, run by the reference interpreter."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from softedge import backbones, config
from softedge.errors import UserError
from softedge.export.coreml import activations as coreml_activations
from softedge.export.coreml import package as coreml
from softedge.export.coreml.format import CoreMl
from softedge.export.coreml.interpreter import Program
from softedge.export.coreml.predict import interpreted
from softedge.export.deployed import Deployed
from softedge.export.nearest import Judge, apart, nearest
from softedge.export.rounding import rounded
from softedge.records import InputSpec

pytest.importorskip("coremltools")

SPEC = InputSpec(32, 32, (0.6, 0.4, 0.2), (0.3, 0.2, 0.1))
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def trained(name="mobilenetv3_small_050", labels=("ant", "bee", "cat")):
    """A network whose BatchNorm statistics and classifier are those of real use, not of initialisation."""
    torch.manual_seed(0)
    backbone = backbones.build(config.Backbone(name=name))
    model = backbones.Classifier(backbone, labels, SPEC)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    with torch.no_grad():
        for _ in range(8):
            backbone.train()(backbones.normalise(torch.from_numpy(IMAGES), SPEC))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    made = {}
    for precision in CoreMl.precisions:
        made[precision] = CoreMl().convert(Deployed(model, SPEC), precision, IMAGES, tmp_path_factory.mktemp(precision))
    return made


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 5e-2), ("w8a8", 0.3)])
def test_every_precision_gives_the_probabilities_of_pytorch(model, exported, precision, allowed):
    found = interpreted(exported[precision])(IMAGES)
    assert found.dtype == np.float32
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found, Deployed.of(model, SPEC).predict(IMAGES), atol=allowed)


def test_image_in_labels_and_probabilities_out_as_the_contract_says(exported):
    description = Program(exported["int8"].path).model.description
    image = description.input[0]
    assert image.name == "image"
    assert image.type.imageType.colorSpace == 20  # RGB
    assert (image.type.imageType.width, image.type.imageType.height) == (32, 32)
    assert [o.name for o in description.output] == ["label", "probabilities"]
    assert Program(exported["int8"].path).labels == ("ant", "bee", "cat")
    assert json.loads(description.metadata.userDefined["softedge.input"]) == SPEC.to_dict()


def test_oldest_systems_are_ios_15_16_and_17(exported):
    versions = {p: Program(a.path).model.specificationVersion for p, a in exported.items()}
    assert versions == {"fp32": 6, "fp16": 6, "int8": 7, "w8a8": 8}


def test_int8_has_every_large_weight_in_eight_bits_and_w8a8_the_activations_of_most_layers_too(model, exported):
    weights = CoreMl().integer_operations(exported["int8"])
    assert weights["conv_weights"] > weights.get("conv_float", 0)
    assert weights["linear_weights"] + weights.get("linear_float", 0) == 1
    both = CoreMl().integer_operations(exported["w8a8"])
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    dense = [m for m in convolutions if m.groups == 1 and m.kernel_size == (1, 1) and m.weight.numel() > 512]
    assert len(dense) <= both["conv"], "only the stem, depthwise layers and small weights are left out"
    assert CoreMl().integer_operations(exported["fp32"]).keys() == {"conv_float", "linear_float"}
    assert exported["int8"].size_bytes < 0.4 * exported["fp32"].size_bytes


def test_one_image_and_a_batch_give_the_same(exported):
    predict = interpreted(exported["fp16"])
    one_by_one = np.concatenate([predict(IMAGES[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(predict(IMAGES), one_by_one, atol=1e-3)


def test_conversion_prints_nothing(model, tmp_path, capfd, recwarn):
    CoreMl().convert(Deployed(model, SPEC), "fp16", IMAGES[:0], tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_the_same_network_is_the_same_package(deployed, tmp_path):
    """coremltools draws identifiers, and protobuf orders maps by a hash that differs between processes."""
    from coremltools.proto import Model_pb2

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = (CoreMl().convert(deployed, "fp16", IMAGES[:0], tmp_path / name) for name in ("one", "other"))
    assert one.sha256 == other.sha256
    written = (one.path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes()
    assert written == Model_pb2.Model.FromString(written).SerializeToString(deterministic=True)


def test_backbone_becomes_a_feature_extractor(model, tmp_path):
    artifact = CoreMl().convert(Deployed(model.backbone, SPEC), "fp32", IMAGES[:0], tmp_path)
    assert artifact.output == "features"
    expected = Deployed.of(model.backbone, SPEC).predict(IMAGES)
    np.testing.assert_allclose(interpreted(artifact)(IMAGES), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18"])
def test_the_interpreter_runs_the_other_families(name, tmp_path):
    model = trained(name)
    artifact = CoreMl().convert(Deployed(model, SPEC), "fp32", IMAGES[:0], tmp_path)
    np.testing.assert_allclose(interpreted(artifact)(IMAGES), Deployed.of(model, SPEC).predict(IMAGES), atol=1e-4)


def test_w8a8_without_images_says_what_to_do(model, tmp_path):
    with pytest.raises(UserError, match="calibration images"):
        CoreMl().convert(Deployed(model, SPEC), "w8a8", IMAGES[:0], tmp_path)


def test_an_op_without_a_kernel_is_named(exported, monkeypatch):
    from softedge.export.coreml import interpreter as mil_interpreter

    monkeypatch.setattr(mil_interpreter, "OPS", {k: v for k, v in mil_interpreter.OPS.items() if k != "conv"})
    with pytest.raises(UserError, match="'conv'"):
        Program(exported["fp32"].path)


def test_names_that_occur_twice_are_refused_because_answers_go_by_name(model, tmp_path):
    with pytest.raises(UserError, match="the label 'ant' is there twice"):
        CoreMl().convert(Deployed(model, SPEC, ("ant", "bee", "ant")), "fp32", IMAGES[:0], tmp_path)


def test_damaged_packages_give_one_clear_line(exported, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Program(tmp_path)
    weights = next(exported["fp32"].path.rglob("weight.bin"))
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="damaged"):
            Program(exported["fp32"].path)
    finally:
        weights.write_bytes(content)


def test_layers_put_in_float_lose_their_pairs_and_8_bit_weights_alone_have_none(deployed, pictures):
    candidates = CoreMl().candidates(deployed, "w8a8", pictures[:16])
    made = next(candidates.calibrations())
    assert len(candidates.layers()) == len(candidates.proxy().layers())
    options = [made, candidates.with_float(made, candidates.layers()[2:4]), candidates.weights_only()]
    pairs = [sum(op.type == "quantize" for op in _operations(candidates._package(option))) for option in options]
    assert pairs[0] > pairs[1] > pairs[2] == 0
    assert candidates.float_layers(options[1]) == {*candidates.float_layers(made), *candidates.layers()[2:4]}
    reference = deployed.predict(pictures)
    noise = [np.abs(candidates.predict(option, pictures) - reference).mean() for option in options]
    assert noise[2] < noise[0]


def test_the_part_in_float_is_written_into_the_package_and_kept_by_the_search(deployed, pictures, tmp_path):
    artifact = CoreMl().convert(deployed, "w8a8", pictures[:16], tmp_path)
    kept = int(coreml.metadata(artifact.path)["float_part"])
    again = CoreMl().candidates(deployed, "w8a8", pictures[:16], like=artifact)
    assert {option.tier for option in again.calibrations()} == {kept}


def test_weights_are_rounded_for_the_least_error_where_that_is_nearer_and_to_the_nearest_without_images(
    model, tmp_path
):
    deployed = Deployed(model, SPEC)
    images = np.random.default_rng(1).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    candidates = CoreMl().candidates(deployed, "int8", images[:32])
    judge = Judge.of(deployed, images[32:])
    fitted, unseen = apart(Judge.of(deployed, candidates.comparison()), images[:32])
    assert len(fitted) == 24 and len(unseen.images) == 8, "those that are compared on have judged only"
    (plain,) = candidates.calibrations()
    assert judge.decibels(candidates, candidates.rounded(plain, images[:32])) > judge.decibels(candidates, plain) + 1
    made = CoreMl().convert(deployed, "int8", images[:32], tmp_path)
    assert coreml.metadata(made.path)["rounding"] == "least error"
    folder = tmp_path / "plain"
    folder.mkdir()
    alone = CoreMl().convert(deployed, "int8", images[:0], folder)
    assert "rounding" not in coreml.metadata(alone.path)
    assert made.size_bytes == pytest.approx(alone.size_bytes, rel=0.05)


def test_the_package_holds_the_integers_that_were_chosen_and_small_layers_stay_in_float(model):
    deployed = Deployed(model, SPEC)
    network = rounded(deployed, IMAGES, smallest=coreml.WEIGHT_THRESHOLD + 1)
    package = coreml.in_8_bits(coreml.program(network, "int8"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        package.save(str(path))
        stored = [value for value in Program(path).constants.values() if getattr(value, "ndim", 0) == 4]
    layers = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    layers = [weight.detach() for weight in layers]
    for weight in layers:
        same = [value for value in stored if value.shape == weight.shape]
        gaps = [float((value.float() - weight).abs().max() / weight.abs().max()) for value in same]
        assert min(gaps) < 2e-3, "half precision, and no second rounding, which would be 4e-3"


def _operations(package):
    function = package.get_spec().mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def test_the_first_layers_and_depthwise_ones_stay_in_float_where_that_is_clearly_nearer(model):
    package = coreml.program(Deployed.of(model, SPEC), "w8a8")
    parts = coreml_activations.float_parts(package)
    depthwise = sum(isinstance(m, torch.nn.Conv2d) and m.groups > 1 for m in model.modules())
    assert [len(part) for part in parts][:3] == [0, 2, 1 + depthwise]  # the second layer is depthwise
    assert set(parts[1]) < set(parts[2]) < set(parts[3])
    deployed = Deployed.of(model, SPEC)
    candidates = CoreMl().candidates(deployed, "w8a8", IMAGES)
    answers = []  # of each candidate on IMAGES, which six are all compared, with its tier

    def predict(option, images, computed=candidates.predict):
        np.testing.assert_array_equal(images, IMAGES)
        answers.append((option.tier, computed(option, images)))
        return answers[-1][1]

    candidates.predict = predict
    chosen = nearest(candidates, Judge.of(deployed, IMAGES)).option
    assert len(answers) == 12

    def centred(probabilities):
        logits = np.log(probabilities)
        return logits - logits.mean(1, keepdims=True)

    exact = centred(deployed.predict(IMAGES))
    best = {}
    for tier, answer in answers:
        noise = np.square(centred(answer) - exact).sum(1) / np.square(exact).sum(1)
        decibels = np.median(-10 * np.log10(noise))  # of each image first: the median of six is a mean of two
        best[tier] = max(best.get(tier, -np.inf), decibels)
    assert chosen.tier == next(tier for tier, value in sorted(best.items()) if value > max(best.values()) - 1)
    assert list(chosen.model.in_float) == parts[chosen.tier]
