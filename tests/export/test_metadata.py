"""Labels and preprocessing that a file carries against those in its contract.json."""

from __future__ import annotations

import copy
import json

import onnx
import pytest

from softedge.errors import GateFailed
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.metadata import contradictions
from softedge.export.verify import verify

ODD = ("ant", 'a > "b"  <c> é\n\t&', "cat", "dog", "eel")


def edit(folder, **changes):
    values = json.loads((folder / contract.FILE).read_text())
    (folder / contract.FILE).write_text(json.dumps(values | changes))


@pytest.fixture(params=["onnx", "openvino", "coreml"])
def folder(request, deployed, pictures, tmp_path):
    target = open_format(request.param)
    if (why := target.missing()) is not None:
        pytest.skip(why)
    named = copy.copy(deployed)
    named.labels = ODD
    artifact = target.convert(named, "fp32", pictures[:0], tmp_path)
    golden = contract.Golden(pictures[:2], target.load(artifact)(pictures[:2]), deployed.predict(pictures[:2]))
    contract.write(tmp_path, artifact, golden)
    return tmp_path


def test_a_file_says_the_labels_and_the_preprocessing_of_its_contract(folder, deployed):
    artifact = contract.read(folder)
    own = open_format(artifact.target).metadata(artifact)
    assert own == {"labels": list(ODD), "input": deployed.spec.to_dict()}
    assert contradictions(artifact) == [] and verify(folder)["passed"]


def test_verify_fails_for_labels_edited_in_the_contract(folder):
    file = contract.read(folder).path.name
    edit(folder, labels=["ant", "bee", "cow", "dog", "eel"])
    with pytest.raises(GateFailed) as error:
        verify(folder)
    assert str(error.value) == (
        f"{folder}: label 1 is 'bee' in contract.json, {ODD[1]!r} in {file} (and 1 more differ): one of them was "
        f"changed after the export; restore {folder / 'contract.json'}, or export the model again"
    )


def test_verify_fails_for_normalisation_edited_in_the_contract(folder):
    mean = [0.0, 0.5, 0.6]
    edit(folder, preprocessing={**contract.read(folder).spec.to_dict(), "mean": mean})
    with pytest.raises(GateFailed, match=r"mean is \[0.0, 0.5, 0.6\] in contract.json, \[0.4, 0.5, 0.6\] in model"):
        verify(folder)


@pytest.mark.parametrize("folder", ["onnx"], indirect=True)
def test_a_file_without_labels_contradicts_no_contract_and_a_damaged_list_does(folder):
    model = onnx.load(folder / "model.onnx")

    def rewritten(metadata):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, folder / "model.onnx")
        edit(folder, sha256=contract.sha256(folder / "model.onnx"), labels=list("abcde"))
        return contradictions(contract.read(folder))

    assert rewritten({}) == []
    assert rewritten({"softedge.labels": '["a", "b"'})[0].startswith("the metadata of model.onnx is damaged")
    assert rewritten({"softedge.labels": '["a", "b", "c", "d"]'})[0].startswith(
        "label 4 is 'e' in contract.json, absent in model.onnx: "
    )


def test_formats_that_carry_no_labels_contradict_nothing(deployed, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"")
    artifact = contract.artifact_of(tmp_path / "model.tflite", "litert", "fp32", deployed.spec, ODD)
    assert contradictions(artifact) == []
