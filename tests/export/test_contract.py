"""contract.json, golden images, verify: what was exported is what runs, or one clear line says what differs."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from softedge.errors import GateFailed, UserError
from softedge.export import contract
from softedge.export.onnx.format import Onnx
from softedge.export.verify import verify


@pytest.fixture
def folder(deployed, pictures, tmp_path):
    target = Onnx()
    artifact = target.convert(deployed, "fp32", pictures[:0], tmp_path)
    expected = target.load(artifact)(pictures[:4])
    golden = contract.Golden(pictures[:4], expected, deployed.predict(pictures[:4]), ("p", "q", "r", "s"))
    contract.write(tmp_path, artifact, golden, {"checkpoint": {"file": "classifier.safetensors"}})
    return tmp_path


def test_contract_reads_back_as_the_same_artifact(folder, deployed):
    artifact = contract.read(folder)
    assert artifact.spec == deployed.spec and artifact.labels == deployed.labels and artifact.name == "onnx-fp32"
    assert artifact.size_bytes == artifact.path.stat().st_size
    values = json.loads((folder / "contract.json").read_text())
    assert values["input"] == {
        "name": "image",
        "dtype": "uint8",
        "layout": "NHWC",
        "color": "RGB",
        "shape": ["N", 16, 16, 3],
    }
    assert values["preprocessing"]["resize"] == 18 and values["preprocessing"]["crop"] == "center"
    assert values["tolerance"]["why"]


def test_the_contract_says_what_becomes_of_pixels_with_more_than_8_bits(folder):
    artifact, golden = contract.read(folder), contract.read_golden(folder)
    assert contract.describe(folder)["before_the_model"].startswith("shorter side to 18 pixels")
    contract.write(folder, artifact, golden, {"white": {"I": 4095.0}})
    text = contract.describe(folder)["before_the_model"]
    assert text.startswith("pixels with more than 8 bits to 0..255, 255 from 4095 (integers) on; shorter side to 18")


def test_verify_passes_on_an_untouched_folder(folder):
    result = verify(folder)
    assert result["passed"] and result["n"] == 4 and result["max_abs_diff"] < 1e-6
    assert [row["image"] for row in result["rows"]] == ["p", "q", "r", "s"]


def test_verify_needs_neither_torch_nor_the_onnx_package(folder):
    code = (
        "import sys; from softedge.export.verify import verify; verify(sys.argv[1]);"
        "print([m for m in ('torch', 'onnx', 'timm', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_edited_model_edited_golden_image_and_missing_file_are_one_line_each(folder):
    model = folder / "model.onnx"
    original = model.read_bytes()
    model.write_bytes(original + b"\0")
    with pytest.raises(UserError, match="changed after the export"):
        verify(folder)
    model.unlink()
    with pytest.raises(UserError, match="does not exist"):
        verify(folder)
    model.write_bytes(original)
    with open(folder / "golden" / "images.npy", "ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"images\.npy was changed"):
        verify(folder)


def test_verify_fails_when_the_runtime_computes_something_else(folder):
    values = json.loads((folder / "contract.json").read_text())
    expected = np.load(folder / "golden" / "expected.npy")
    np.save(folder / "golden" / "expected.npy", np.roll(expected, 1, axis=1))
    values["golden"]["expected"]["sha256"] = contract.sha256(folder / "golden" / "expected.npy")
    (folder / "contract.json").write_text(json.dumps(values))
    with pytest.raises(GateFailed, match="of 4 golden images differ"):
        verify(folder)


def test_verify_fails_when_the_runtime_computes_something_else_for_one_image_alone(folder, monkeypatch):
    load = Onnx.load

    def changed(self, artifact):
        predict = load(self, artifact)
        return lambda images: predict(images) if len(images) > 1 else np.roll(predict(images), 1, axis=1)

    monkeypatch.setattr(Onnx, "load", changed)
    with pytest.raises(GateFailed, match="of 4 golden images differ"):
        verify(folder)


def test_folder_without_a_contract_and_contract_of_another_version_are_refused(folder, tmp_path_factory):
    with pytest.raises(UserError, match=r"holds no contract\.json"):
        verify(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UserError, match="nowhere is not there; give an export folder"):
        verify(folder / "nowhere")
    with pytest.raises(UserError, match=r"contract\.json is a file; give an export folder"):
        verify(folder / "contract.json")
    values = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**values, "schema": 99}))
    with pytest.raises(UserError, match="has schema 99"):
        verify(folder)
    del values["labels"]
    (folder / "contract.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="is damaged"):
        contract.read(folder)


@pytest.mark.parametrize(
    "change", [{"labels": []}, {"labels": ["a", "b"]}, {"tolerance": {}}, {"output": {"name": "scores"}}]
)
def test_a_contract_whose_parts_do_not_fit_each_other_is_refused(folder, change):
    values = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps(values | change))
    with pytest.raises(UserError, match=r"contract\.json is damaged"):
        verify(folder)


@pytest.mark.parametrize(
    "place, value",
    [
        ("precision", "int3"),
        ("precision", "exact"),
        ("precision", 8),
        ("bits.weights", 8),
        ("bits.sign", 1),
        ("model", "../model.onnx"),
        ("files", ["/model.onnx"]),
        ("files", []),
        ("sha256", "abc"),
        ("sha256", "Z" * 64),
        ("input.dtype", "float32"),
        ("input.layout", "NCHW"),
        ("input.color", "BGR"),
        ("input.shape", ["N", 16, 32, 3]),
        ("input.shape", ["N", 3, 16, 16]),
        ("output.name", "logits"),
        ("output.dtype", "float16"),
        ("output.shape", [1, 3]),
        ("output.shape", ["N", 3, 1]),
        ("output.scale", 0.1),
        ("labels", "abc"),
        ("labels", [1, 2, 3]),
        ("preprocessing.size", 32),
        ("preprocessing.size", -16),
        ("preprocessing.resize", 8),
        ("preprocessing.resize", "18"),
        ("preprocessing.interpolation", "nearest"),
        ("preprocessing.crop", "random"),
        ("preprocessing.antialias", False),
        ("preprocessing.mean", [0.5, 0.5]),
        ("preprocessing.mean", [0.5, 0.5, float("nan")]),
        ("preprocessing.std", [0.5, -0.5, 0.5]),
        ("preprocessing.std", [0.5, 0, 0.5]),
        ("tolerance.replay", float("inf")),
        ("tolerance.replay", -1),
        ("tolerance.replay", "1"),
        ("target", "caffe"),
    ],
)
def test_a_field_that_an_app_acts_upon_and_that_is_wrong_is_refused(folder, place, value):
    values = json.loads((folder / "contract.json").read_text())
    *above, last = place.split(".")
    at = values
    for key in above:
        at = at[key]
    at[last] = value
    (folder / "contract.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"contract\.json is damaged|no precision|caffe"):
        verify(folder)


@pytest.mark.parametrize("name, array", [("images", np.zeros((4, 8, 8, 3), np.uint8)), ("expected", np.zeros((4, 2)))])
def test_golden_arrays_of_another_shape_than_the_contract_says_are_refused(folder, name, array):
    values = json.loads((folder / "contract.json").read_text())
    np.save(folder / "golden" / f"{name}.npy", array)
    values["golden"][name]["sha256"] = contract.sha256(folder / "golden" / f"{name}.npy")
    (folder / "contract.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"contract\.json is damaged \(.*golden"):
        verify(folder)


def test_the_size_is_that_of_the_files_whatever_the_contract_says(folder):
    values = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps(values | {"size_bytes": -1}))
    assert contract.read(folder).size_bytes == (folder / "model.onnx").stat().st_size


def test_openvino_hash_covers_the_weights_file(tmp_path, deployed):
    def hashed():
        return contract.artifact_of(tmp_path / "model.xml", "openvino", "fp32", deployed.spec).sha256

    (tmp_path / "model.xml").write_text("<net/>")
    (tmp_path / "model.bin").write_bytes(b"1")
    before = hashed()
    (tmp_path / "model.bin").write_bytes(b"2")
    assert hashed() != before
