"""The export stage: a folder is complete or holds the reason; one failing format does not take the others down."""

from __future__ import annotations

import dataclasses
import errno
import json

import numpy as np
import pytest
from exporting import export
from toy_format import Toy

from softedge import config, registry
from softedge.errors import CannotRunHere, UserError
from softedge.export import contract
from softedge.export.base import open_format
from softedge.export.executorch.format import ExecuTorch
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.quantizer import Scheme
from softedge.export.openvino.format import OpenVino
from softedge.records import Outcome, Precision
from softedge.report.files import asked_for
from softedge.run import Run, perform
from softedge.stages import added
from softedge.stages import export as stage


class Broken(Onnx):
    """Writes half a model and fails, as converters do."""

    name = "broken"

    def convert(self, deployed, precision, images, out):
        (out / "model.onnx").write_bytes(b"half")
        raise self.error

    error: Exception = RuntimeError("unsupported operator 'Frobnicate'\nand a long explanation")


class Missing(Onnx):
    name = "missing"

    def missing(self):
        return "exporting to X needs x; install it with: pip install x"


class Wrong(Onnx):
    """A file that computes something else: the depthwise weights come out scaled."""

    name = "wrong"

    def convert(self, deployed, precision, images, out):
        import onnx
        from onnx import numpy_helper

        from softedge.export.contract import artifact_of

        artifact = Onnx.convert(self, deployed, precision, images, out)
        file = onnx.load(artifact.path)
        tensor = next(t for t in file.graph.initializer if "depthwise" in t.name and "weight" in t.name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
        onnx.save(file, artifact.path)
        return artifact_of(artifact.path, self.name, precision, artifact.spec, artifact.labels)


class Alone(Onnx):
    """A file whose classes change places when an image is run alone."""

    name = "alone"

    def load(self, artifact):
        predict = Onnx.load(self, artifact)
        return lambda images: predict(images) if len(images) > 1 else np.roll(predict(images), 1, axis=1)


class Unrunnable(Onnx):
    name = "unrunnable"

    def load(self, artifact):
        raise CannotRunHere("no kernel for 'pad'")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for kind in (Broken, Missing, Wrong, Alone, Unrunnable):
        monkeypatch.setitem(registry.FORMATS, kind.name, f"{__name__}:{kind.__name__}")


def test_complete_folder_has_model_contract_golden_images_and_snippets(tmp_path, source):
    (result,) = export(Run(tmp_path), [Onnx()], source)
    folder = tmp_path / "export" / "onnx-fp32"
    assert sorted(p.name for p in folder.iterdir()) == [
        "contract.json",
        "golden",
        "model.onnx",
        "result.json",
        "snippets",
    ]
    assert result.metrics["size_bytes"] == (folder / "model.onnx").stat().st_size
    assert result.metrics["max_abs_diff"] < 1e-5 and result.metrics["n"] == 12
    golden = contract.read_golden(folder)
    assert golden.names == ("p0", "p1", "p2") and np.array_equal(golden.images, source.images[:3])
    assert sorted(p.name for p in (folder / "snippets").iterdir()) == [
        "labels.txt",
        "run.cpp",
        "run.kt",
        "run.py",
        "run.swift",
    ]
    assert not any("@" in p.read_text().replace("@Suppress", "") for p in (folder / "snippets").iterdir())


def test_the_contract_states_the_range_of_wide_pixels(tmp_path, source):
    export(Run(tmp_path / "plain"), [Onnx()], source)
    assert "white" not in contract.describe(tmp_path / "plain" / "export" / "onnx-fp32")
    export(Run(tmp_path / "wide"), [Onnx()], dataclasses.replace(source, white={"I": 4095.0}))
    folder = tmp_path / "wide" / "export" / "onnx-fp32"
    assert contract.describe(folder)["white"] == {"I": 4095.0}
    assert '{"I": 4095.0}.get(image.mode[0], white)' in (folder / "snippets" / "run.py").read_text()


def test_failing_and_missing_targets_are_recorded_and_the_others_go_on(tmp_path, source, capsys):
    broken, missing, fine = export(Run(tmp_path), [Broken(), Missing(), Onnx()], source)
    assert broken.skipped == {"model": "RuntimeError: unsupported operator 'Frobnicate'"}
    assert missing.skipped == {"model": "exporting to X needs x; install it with: pip install x"}
    assert fine.skipped == {}
    assert [p.name for p in (tmp_path / "export" / "broken-fp32").iterdir()] == ["result.json"]
    assert "broken-fp32 was not exported: RuntimeError: unsupported operator" in capsys.readouterr().err
    assert [a.name for a in contract.exported(tmp_path / "export")] == ["onnx-fp32"]


def test_format_that_failed_is_tried_again_and_one_that_is_done_is_not(tmp_path, source):
    run = Run(tmp_path)
    export(run, [Broken(), Onnx()], source)
    with pytest.raises(UserError, match="none of the formats asked for could be exported; RuntimeError: unsupported"):
        export(run, [Broken()], source)
    before = (tmp_path / "export" / "onnx-fp32" / "result.json").read_bytes()

    class Mended(Onnx):
        name = "broken"

    mended, _ = export(run, [Mended(), Onnx()], source)
    assert mended.skipped == {} and (tmp_path / "export" / "broken-fp32" / "model.onnx").exists()
    assert (tmp_path / "export" / "onnx-fp32" / "result.json").read_bytes() == before


def test_a_file_that_cannot_be_run_here_is_kept_and_said_to_be_unchecked(tmp_path, source, capsys):
    (result,) = export(Run(tmp_path), [Unrunnable()], source)
    folder = tmp_path / "export" / "unrunnable-fp32"
    assert (folder / "model.onnx").is_file() and contract.read(folder).name == "unrunnable-fp32"
    assert result.skipped == {"parity": "not checked: no kernel for 'pad'"} and "max_abs_diff" not in result.metrics
    about = contract.describe(folder)
    assert about["parity"] is None and about["not_checked"].startswith("not checked: no kernel for 'pad'; the expected")
    assert "MB, not checked: no kernel for 'pad'" in capsys.readouterr().err


def test_full_disk_stops_the_export_and_leaves_nothing_half_written(tmp_path, source):
    full = Broken()
    object.__setattr__(full, "error", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        export(Run(tmp_path), [full], source)
    assert not any(p.is_file() for p in (tmp_path / "export" / "broken-fp32").rglob("*"))


def test_failed_parity_is_an_error_that_names_the_first_layer_that_departs(tmp_path, source):
    with pytest.raises(UserError, match="wrong-fp32 differs from PyTorch on 12 real images: max_abs_diff") as failed:
        export(Run(tmp_path), [Wrong()], source)
    assert "the first layer that departs is model.depthwise.0" in str(failed.value)
    assert not (tmp_path / "export" / "wrong-fp32" / "model.onnx").exists()


def test_a_runtime_that_answers_otherwise_for_one_image_than_for_several_is_found(tmp_path, source):
    with pytest.raises(UserError, match="alone-fp32 gives different outputs for one image than for a batch"):
        export(Run(tmp_path), [Alone()], source)
    assert not (tmp_path / "export" / "alone-fp32" / "model.onnx").exists()


def test_other_settings_are_refused_without_force(tmp_path, source):
    run = Run(tmp_path)
    export(run, [Onnx()], source)
    with pytest.raises(UserError, match="made with other settings"):
        stage.export_formats(run, [(Onnx(), "fp32")], lambda: source, recipe={"x": 2}, inputs={"w": "0"})
    stage.export_formats(run, [(Onnx(), "fp32")], lambda: source, recipe={"x": 2}, inputs={"w": "0"}, force=True)
    assert json.loads((tmp_path / "export" / "onnx-fp32" / "result.json").read_text())["recipe"] == {"x": 2}


def test_openvino_folder_verifies_too(tmp_path, source):
    from softedge.export.verify import verify

    export(Run(tmp_path), [OpenVino()], source)
    assert verify(tmp_path / "export" / "openvino-fp32")["passed"]


def test_strict_files_stand_beside_the_others_in_the_formats_that_have_them():
    recipe = config.build({"export": {"targets": ["onnx", "openvino"], "precisions": ["int8"], "strict": True}}, ())
    names = [f"{format_.name}-{precision}" for format_, precision in stage.asked(recipe)]
    assert names == ["onnx-int8", "openvino-int8", "onnx-int8-strict"]
    alone = config.build({"export": {"targets": ["openvino"], "precisions": ["int8"], "strict": True}}, ())
    with pytest.raises(UserError, match="export.strict: OpenVINO has no files in integers alone"):
        stage.asked(alone)
    with pytest.raises(UserError, match="OpenVINO has no precision 'int8-strict'"):
        open_format("openvino").bits("int8-strict")


def _asked(**section):
    return [f"{format_.name}-{precision}" for format_, precision in stage.asked(config.build({"export": section}, ()))]


def test_precisions_that_nobody_named_are_those_that_each_format_has(monkeypatch):
    targets = ["onnx", "executorch", "litert"]
    files = ["onnx-fp32", "onnx-fp16", "onnx-int8", "executorch-fp32", "executorch-int8"]
    files += ["litert-fp32", "litert-fp16", "litert-int8"]
    assert _asked(targets=targets) == files
    assert asked_for(config.build({"export": {"targets": targets}}, ()).model_dump(mode="json")) == files, "the report"
    assert _asked(targets=["executorch"]) == ["executorch-fp32", "executorch-int8"]
    monkeypatch.setattr(ExecuTorch, "precisions", {"w8a8": Precision(8, 8)})
    with pytest.raises(UserError) as failed:
        _asked(targets=targets)
    assert str(failed.value) == "ExecuTorch has none of fp32, fp16, int8; choose with --precisions: w8a8"


def test_a_named_precision_that_a_format_does_not_have_is_one_line():
    assert _asked(targets=["onnx", "executorch"], precisions=["fp16"]) == ["onnx-fp16", "executorch-fp16"]
    recipe = config.build({"export": {"targets": ["onnx", "executorch"], "precisions": ["fp16"]}}, ())
    assert asked_for(recipe.model_dump(mode="json")) == ["onnx-fp16", "executorch-fp16"]
    with pytest.raises(UserError, match=r"export\.precisions: no 'fp16' in ExecuTorch"):
        _asked(targets=["executorch"], precisions=["fp16"])


def test_the_record_of_a_precision_that_a_format_does_not_have_goes_when_nobody_asks_for_it(tmp_path):
    run = Run(tmp_path)
    for name in ("executorch-fp16", "executorch-fp32", "elsewhere-fp16"):
        refused = Outcome(skipped={"model": "no file"})
        perform(run, f"export/{name}", lambda folder, refused=refused: refused, recipe={}, inputs={})
    added.forget_impossible(run, ["executorch-fp16"])
    assert set(run.results("export")) == {"executorch-fp16", "executorch-fp32", "elsewhere-fp16"}
    added.forget_impossible(run, ["executorch-fp32"])
    assert set(run.results("export")) == {"executorch-fp32", "elsewhere-fp16"}, "those could be made"


class Taking(Toy):
    """Writes down whose integers it was offered."""

    name = "taking"
    searchable = ("int8",)
    integers_from = (".onnx",)

    def convert(self, deployed, precision, calibration, out):
        path = out / "model.toy"
        path.write_text(" ".join(other.name for other in self.others))
        return contract.artifact_of(path, self.name, precision, deployed.spec, deployed.labels, deployed.output)

    def files(self, path):
        return [path]

    def load(self, artifact):
        return lambda images: np.full((len(images), 5), 1 / 5, np.float32)


def test_files_whose_integers_are_taken_are_exported_first_and_are_an_input(tmp_path, source, monkeypatch, capsys):
    monkeypatch.setitem(registry.FORMATS, "taking", f"{__name__}:Taking")
    run, whole = Run(tmp_path), Onnx(scheme=Scheme())

    def offered(*formats, **options):
        asked = [(format_, "int8") for format_ in formats]
        results = stage.export_formats(run, asked, lambda: source, recipe={"x": 1}, inputs={"w": "0"}, **options)
        assert [result.stage for result in results] == [f"export/{format_.name}-int8" for format_ in formats]
        return (tmp_path / "export" / "taking-int8" / "model.toy").read_text(), results

    assert offered(Taking())[0] == "", "alone it has its own"
    found, (taking, onnx) = offered(Taking(), whole)
    assert found == "onnx-int8" and "taking-int8 is made anew: onnx-int8 is new" in capsys.readouterr().err
    assert taking.inputs == {"w": "0", "export/onnx-int8": onnx.details["sha256"]}
    capsys.readouterr()
    assert offered(Taking())[1][0].started == taking.started, "done, with the same inputs"
    assert offered(whole, Taking())[1][1].started == taking.started
    assert "already done" in capsys.readouterr().err
    stage.export_formats(run, [(whole, "int8")], lambda: source, recipe={"x": 2}, inputs={"w": "0"}, force=True)
    assert offered(Taking(), force=True)[0] == "", "a file of other settings is not of the same export"


def test_float_files_are_made_where_no_image_can_calibrate_any_more(tmp_path, source, capsys):
    def gone():
        raise UserError("photo.jpg cannot be read any more")

    asked = [(Onnx(), "fp32"), (Onnx(), "int8"), (Onnx(), "fp16"), (Onnx(), "w8a32"), (OpenVino(), "w8a32")]
    without = dataclasses.replace(source, calibration=gone)
    stage.export_formats(Run(tmp_path), asked, lambda: without, recipe={}, inputs={})
    assert contract.read(tmp_path / "export/onnx-fp16").precision == "fp16"
    said = capsys.readouterr().err
    for name in ("onnx-w8a32", "openvino-w8a32"):  # 8-bit weights, and no ranges
        assert contract.describe(tmp_path / "export" / name)["calibration"] is None
        assert f"{name} keeps its weights to the nearest steps: photo.jpg cannot be read any more" in said
    assert Run(tmp_path).result("export/onnx-int8").skipped == {"model": "photo.jpg cannot be read any more"}


def test_weights_alone_are_rounded_on_the_calibration_images_and_the_contract_says_so(tmp_path, source):
    asked = [(Onnx(), "w8a32"), (OpenVino(), "w8a32")]
    stage.export_formats(Run(tmp_path), asked, lambda: source, recipe={}, inputs={})
    for name in ("onnx-w8a32", "openvino-w8a32"):
        about = contract.describe(tmp_path / "export" / name)
        assert about["calibration"]["images"] == len(source.calibration().images) > 0
        assert about["parity"]["max_abs_diff"] < 0.2
