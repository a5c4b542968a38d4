"""The check stage on files of a made-up target whose outputs the test decides."""

import functools
import shutil
import sys
import types
from typing import ClassVar

import numpy as np
import pytest

from softedge import backbones, config, registry
from softedge.bench import answers
from softedge.data.images import ArrayImages, Data
from softedge.errors import UserError
from softedge.eval.measures import centred_logits, compare, knn_overlap, sqnr_db
from softedge.export.base import Format
from softedge.export.contract import FILE, Golden, artifact_of, write
from softedge.export.deployed import Deployed
from softedge.export.tolerance import Tolerance
from softedge.records import InputSpec, Outcome, Precision
from softedge.run import Run, perform, read_json, sha256, write_json
from softedge.stages import check as quantization
from softedge.stages import gate
from softedge.stages.opening import replaced

SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
LABELS = ("ant", "bee")
RECIPE = config.Recipe(name="test", check=config.Check(images=40))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)


class Fake(Format):
    """A format whose file holds how much of the images' answers it swaps and what it adds to the probabilities."""

    name = "fake"
    title = "Fake"
    suffix = ".fake"
    precisions: ClassVar = {"fp32": Precision(32, 32), "fp16": Precision(16, 16), "int8": Precision(8, 8)}

    def missing(self):
        return None

    def convert(self, deployed, precision, calibration, out):
        raise AssertionError("nothing is exported here")

    def runtime(self):
        return "fake 1.0"

    def load(self, artifact):
        text = artifact.path.read_text()
        if text == "absent":
            raise UserError("running fake needs a fake runtime")
        swap, add = (float(v) for v in text.split())

        def predict(images):
            model = backbones.load_classifier(artifact.path.parents[2] / "probe" / "classifier.safetensors")
            found = Deployed.of(model, SPEC).predict(images) + np.float32(add)
            found[: round(swap * len(found))] = found[: round(swap * len(found)), ::-1]
            return found

        return predict


@pytest.fixture
def run(tmp_path, monkeypatch):
    module = types.ModuleType("fake_target")
    module.Fake = Fake
    monkeypatch.setitem(sys.modules, "fake_target", module)
    monkeypatch.setitem(registry.FORMATS, "fake", "fake_target:Fake")
    backbone = backbones.build(config.Backbone(name="mobilenetv3_small_050"))
    classifier = backbones.Classifier(backbone, LABELS, SPEC).eval()
    backbones.save(tmp_path / "run" / "probe" / "classifier.safetensors", classifier, SPEC)
    return Run(tmp_path / "run")


def add(run, precision, text):
    folder = run.folder("export") / f"fake-{precision}"
    folder.mkdir(parents=True)
    (folder / "model.fake").write_text(text)
    golden = Golden(IMAGES[:1], np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32))
    write(folder, artifact_of(folder / "model.fake", "fake", precision, SPEC, LABELS), golden)


def data(labelled=True):
    names = [f"{i}.png" for i in range(len(IMAGES))]
    labels = np.arange(len(IMAGES)) % 2 if labelled else np.full(len(IMAGES), -1)
    every = ArrayImages(IMAGES, labels, names)
    none = every.subset([])
    return Data(
        "test", LABELS if labelled else (), SPEC, every, every if labelled else none, every if labelled else none
    )


def test_equal_files_pass_and_changed_answers_fail_with_the_numbers(run):
    add(run, "fp32", "0 0")
    add(run, "int8", "0.25 0")
    result = quantization.stage(run, RECIPE, data())
    rows = {row["artifact"]: row for row in result.details["rows"]}
    assert rows["fake-fp32"]["passed"] is True
    assert rows["fake-fp32"]["max_abs_diff"] == 0.0
    assert rows["fake-fp32"]["runtime"] == "fake 1.0"
    assert rows["fake-int8"]["passed"] is False
    assert rows["fake-int8"]["agreement"] == pytest.approx(0.75)
    assert rows["fake-int8"]["n"] == 40
    assert rows["fake-int8"]["drop"] == pytest.approx(rows["fake-int8"]["top1_fp32"] - rows["fake-int8"]["top1"])
    assert "agreement 0.750 is below 0.98" in result.details["failed"][0]
    assert result.metrics["passed"] is False
    assert rows["fake-int8"]["size_ratio"] == pytest.approx(len("0.25 0") / len("0 0"))


def test_the_answers_of_every_file_are_kept_for_the_devices(run):
    add(run, "fp32", "0 0")
    add(run, "int8", "0.25 0")
    result = quantization.stage(run, RECIPE, data())
    stored = answers.read(run.folder("check"))
    for row in result.details["rows"]:
        digest, classes = stored[row["artifact"]]
        assert digest == row["sha256"] and len(classes) == row["n"]
    same, n = answers.agreement(stored["fake-fp32"][1], *zip(*stored["fake-int8"][1].items()))
    assert same == result.details["rows"][1]["agreement"] < 1 and n == 40
    (run.folder("check") / answers.FILE).write_text("{")
    assert answers.read(run.folder("check")) == {}


def test_labels_edited_in_a_contract_fail_the_check_until_they_are_restored(run, monkeypatch):
    """Also of an int8 file, which nobody asked for and whose search passed: a limit may be missed, a wrong name not."""
    monkeypatch.setattr(Fake, "metadata", lambda self, artifact: {"labels": list(LABELS)})
    for precision in ("fp32", "int8", "int8-search"):
        add(run, precision, "0 0")
    assert quantization.stage(run, RECIPE, data()).metrics["passed"] is True
    path = run.folder("export") / "fake-int8" / FILE
    contract = read_json(path)
    write_json(path, contract | {"labels": ["ant", "wasp"]})
    result = quantization.stage(run, RECIPE, data())
    assert result.details["failed"] == [
        "fake-int8: label 1 is 'wasp' in contract.json, 'bee' in model.fake: one of them was changed after the export; "
        f"restore {path}, or export the model again"
    ]
    assert gate.failures(result, ("int8",)) == (result.details["failed"], [])
    write_json(path, contract)
    assert quantization.stage(run, RECIPE, data()).metrics["passed"] is True


def test_labels_edited_beside_a_file_that_carries_none_pass(run):
    add(run, "fp32", "0 0")
    path = run.folder("export") / "fake-fp32" / FILE
    write_json(path, read_json(path) | {"labels": ["ant", "wasp"]})
    assert quantization.stage(run, RECIPE, data()).metrics["passed"] is True


def test_fp32_is_held_to_the_tolerance_of_its_contract(run):
    add(run, "fp32", "0 0.001")
    result = quantization.stage(run, RECIPE, data())
    assert "max_abs_diff 0.001 is above the tolerance 0.0001" in result.details["failed"][0]


def test_a_format_with_a_tolerance_of_its_own_is_held_to_that(run, monkeypatch):
    loose = Tolerance(replay=0.01, parity=0.01, why="its runtime computes in tables")
    monkeypatch.setattr(Fake, "tolerance", lambda self, precision: loose)
    add(run, "fp32", "0 0.001")
    assert read_json(run.folder("export") / "fake-fp32" / FILE)["tolerance"] == {
        "replay": 0.01,
        "parity": 0.01,
        "why": loose.why,
    }
    assert not quantization.stage(run, RECIPE, data()).details.get("failed")


def test_a_file_that_cannot_run_is_not_run_and_never_passed(run):
    add(run, "fp32", "0 0")
    add(run, "int8", "absent")
    result = quantization.stage(run, RECIPE, data())
    row = result.details["rows"][1]
    assert row["passed"] is None
    assert "agreement" not in row
    assert "fake runtime" in result.skipped["fake-int8"]
    assert result.metrics["files_not_run"] == 1


def test_nothing_measured_is_not_a_pass(run):
    add(run, "fp32", "absent")
    assert quantization.stage(run, RECIPE, data()).metrics["passed"] is False


def test_without_labels_agreement_and_distance_still_judge(run):
    add(run, "int8", "0.25 0")
    result = quantization.stage(run, RECIPE, data(labelled=False))
    row = result.details["rows"][0]
    assert "top1" not in row
    assert row["agreement"] == pytest.approx(0.75)
    assert row["distance"] > 0
    assert result.details["images"] == {"n": 40, "labelled": False, "held_out": False}


def test_examples_show_what_int8_loses_first(run):
    add(run, "int8", "0.25 0")
    result = quantization.stage(run, RECIPE, data(labelled=False))
    first, last = result.details["examples"][0], result.details["examples"][-1]
    assert first["lost_by_int8"] and not last["lost_by_int8"]
    assert first["fp32"]["predicted"] != first["predictions"]["fake-int8"]["predicted"]
    assert last["fp32"]["predicted"] == last["predictions"]["fake-int8"]["predicted"]
    assert (run.folder("check") / first["file"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "limits", [{"min_agreement": 0.7, "max_drop": 0.9}, {"max_size": 5}, {"max_drop": 0.0}, {"against": "earlier"}]
)
def test_other_limits_judge_what_was_measured_as_a_check_from_the_start_would(run, monkeypatch, limits, capsys):
    for precision, text in {"fp32": "0 0", "int8": "0.25 0", "int8-search": "0.05 0", "fp16": "absent"}.items():
        add(run, precision, text)
    first = quantization.stage(run, RECIPE, data())
    if limits.get("against"):
        shutil.copytree(run.root, run.root.parent / "earlier")
        (run.root.parent / "earlier/recipe.toml").touch()
        limits = {"against": str(run.root.parent / "earlier")}
    recipe = replaced(RECIPE, check=limits)
    fresh = quantization.stage(run, recipe, data(), force=True)
    quantization.stage(run, RECIPE, data(), force=True)
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "_check", lambda *rest: pytest.fail("the files were run again"))
        judged = quantization.stage(run, recipe, data())
        assert run.result("check") == judged
        line = next(line for line in capsys.readouterr().err.splitlines() if "measured before" in line)
        assert all(f"{name}: " in line for name in limits)
        assert quantization.stage(run, recipe, data()) == judged
        back = quantization.stage(run, RECIPE, data())
    for now, then in ((judged, fresh), (back, first)):
        for part in ("metrics", "skipped", "recipe", "inputs"):
            assert getattr(now, part) == getattr(then, part)
        rows = [[{key: row[key] for key in sorted(row)} for row in result.details["rows"]] for result in (now, then)]
        assert rows[0] == rows[1] and {**now.details, "rows": 0} == {**then.details, "rows": 0}


@pytest.mark.parametrize("least", [0.0, 0.999])
def test_no_file_below_the_least_accuracy_is_first_said_to_pass(run, capsys, least):
    add(run, "fp32", "0 0")
    recipe = replaced(RECIPE, check={"min_accuracy": least})
    checked = gate.with_late_gates(quantization.stage(run, recipe, data()), run, recipe.check)
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("check: fake-fp32"))
    (row,) = checked.details["rows"]
    assert row["passed"] == (row["top1"] >= least) == ("passed" in line)
    assert ("is below the least accuracy 0.999" in line) == ("FAILED" in line) == (not row["passed"])


def test_other_limits_for_other_files_measure_again_and_other_images_are_refused(run):
    add(run, "fp32", "0 0")
    quantization.stage(run, RECIPE, data())
    add(run, "int8", "0.25 0")
    result = quantization.stage(run, replaced(RECIPE, check={"min_agreement": 0.7, "max_drop": 0.9}), data())
    assert result.metrics["files_passed"] == 2
    with pytest.raises(UserError, match=r"check.images: 40 -> 20.*--force \(Python: force=True\)"):
        quantization.stage(run, replaced(RECIPE, check={"images": 20, "max_drop": 0.9}), data())


def test_an_earlier_run_that_is_none_is_refused_before_anything_is_compared(run, tmp_path, monkeypatch):
    add(run, "fp32", "0 0")
    monkeypatch.setattr(quantization, "_check", lambda *rest: pytest.fail("the files were compared first"))
    recipe = replaced(RECIPE, check={"against": str(tmp_path / "nope")})
    with pytest.raises(UserError, match="nope is not a softedge run .there is no such folder"):
        quantization.stage(run, recipe, data())
    (tmp_path / "nope").mkdir()
    (tmp_path / "nope/recipe.toml").touch()
    with pytest.raises(UserError, match="nope has no finished 'check' stage yet"):
        quantization.stage(run, recipe, data())


def test_without_exports_the_command_to_run_is_named(run):
    with pytest.raises(UserError, match="softedge export"):
        quantization.stage(run, RECIPE, data())


@pytest.mark.parametrize("change", ["removed", "trained again", "its record damaged"])
def test_a_file_is_compared_with_the_network_it_was_made_from_and_no_other(run, change):
    weights = run.root / "finetune/classifier.safetensors"
    done = functools.partial(perform, run, recipe={}, resumable=True)
    shutil.copytree(run.folder("probe"), weights.parent)
    done("finetune", lambda _: Outcome(), inputs={})
    add(run, "fp32", "0 0")
    done("export/fake-fp32", lambda _: Outcome(), inputs={"finetune/classifier.safetensors": sha256(weights)})
    assert quantization.stage(run, RECIPE, data()).metrics["passed"]
    if change == "removed":
        weights.unlink()
    elif change == "trained again":
        done("finetune", lambda _: Outcome({"n": weights.write_bytes(b"other")}), inputs={}, force=True)
    else:
        (weights.parent / "result.json").write_text("{")
    with pytest.raises(UserError, match="finetune"):
        quantization.stage(run, RECIPE, data(), force=True)


def test_an_export_whose_record_is_gone_is_not_compared_with_another_network(run):
    add(run, "fp32", "0 0")
    contract, weights = run.folder("export") / "fake-fp32" / FILE, run.root / "probe/classifier.safetensors"
    for digest in (sha256(weights), "of another"):
        write_json(contract, read_json(contract) | {"checkpoint": {"checkpoint_sha256": digest}})
        if digest == sha256(weights):
            assert quantization.stage(run, RECIPE, data()).metrics["passed"]
        else:
            with pytest.raises(UserError, match="export again"):
                quantization.stage(run, RECIPE, data())


def test_centred_logits_are_logits_up_to_a_constant():
    logits = RNG.normal(size=(5, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(centred_logits(probabilities), expected, atol=1e-9)


def test_sqnr_of_a_tenth_of_noise_is_twenty_decibels():
    reference = np.ones((3, 7))
    assert sqnr_db(reference, reference * 1.1).tolist() == pytest.approx([20.0] * 3)
    assert sqnr_db(reference, reference).tolist() == pytest.approx([140.0] * 3)


def test_neighbours_stay_under_rotation_and_go_under_shuffling():
    features = RNG.normal(size=(60, 8)).astype(np.float32)
    rotation, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    assert knn_overlap(features, (features @ rotation).astype(np.float32), k=5) > 0.99
    assert knn_overlap(features, features[::-1].copy(), k=5) < 0.3


def test_features_are_compared_by_direction():
    reference = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [3.0, 1.0]], np.float32)
    assert compare(reference, reference * 2, None, "features")["distance"] == pytest.approx(0, abs=1e-6)
    assert compare(reference, -reference, None, "features")["distance"] == pytest.approx(2)
