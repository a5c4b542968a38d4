from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import LABELS, SPEC, colours, export

from softedge import registry
from softedge.bench import answers
from softedge.bench import base as devices
from softedge.bench.base import Device, DeviceError, Measurement, Preset, TimingPlan
from softedge.config import Recipe
from softedge.data.images import ArrayImages, Data
from softedge.errors import GateFailed, UserError
from softedge.records import Artifact, Outcome, Result
from softedge.run import Run, perform, sha256
from softedge.stages import bench as stage
from softedge.stages.gate import benched, require_measured


class Scripted(Device):
    """A device whose answers a test writes down; counts how often it was asked."""

    known_options = ("tag",)
    answer: Callable[[Artifact, TimingPlan], Measurement]
    asked: list[list[str]]

    def describe(self) -> dict[str, Any]:
        return {"cpu": "scripted"}

    def run(self, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        type(self).asked.append([a.name for a in artifacts])
        return [type(self).answer(artifact, plan) for artifact in artifacts]


def timed(artifact: Artifact, plan: TimingPlan, right: int = 12, ms: float = 2.0) -> Measurement:
    """``right`` of the twelve images classified right, 30 samples in 10 rounds."""
    labels = colours()[1].copy()
    labels[right:] = (labels[right:] + 1) % 3
    samples = np.random.default_rng(len(artifact.name)).normal(ms, 0.01, 30).tolist()
    rounds = np.repeat(np.arange(10), 3).tolist()
    return Measurement(
        artifact.name, artifact.sha256, samples_ms=samples, rounds=rounds, outputs=np.eye(3, dtype=np.float32)[labels]
    )


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setitem(registry.DEVICES, "scripted", f"{__name__}:Scripted")
    monkeypatch.setitem(devices.PRESETS, "quick", Preset(20, 0.02, 500))
    Scripted.answer, Scripted.asked = staticmethod(timed), []  # type: ignore[assignment]
    return Scripted


def bench(run: Run, data: Data, devices: list[str], preset: str, force: bool = False) -> list[Result]:
    asked = Recipe.model_validate({"bench": {"devices": devices, "preset": preset}})
    return stage.stage(run, asked, data, force=force)


@pytest.fixture
def data() -> Data:
    images, labels = colours()
    pictures = ArrayImages(images, labels, [f"picture {i}" for i in range(12)])
    return Data("colours", LABELS, SPEC, pictures, pictures, pictures)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "a run")
    for kind in ("onnx-fp32", "onnx-int8", "coreml-fp16"):
        target, precision = kind.split("-")

        def work(folder: Path, target: str = target, precision: str = precision) -> Outcome:
            artifact = export(folder / "x", target, precision, flawed=precision == "int8")
            for path in (folder / "x").iterdir():
                path.rename(folder / path.name)
            (folder / "x").rmdir()
            return Outcome({"size_bytes": artifact.size_bytes})

        perform(run, f"export/{kind}", work, recipe={}, inputs={})
    return run


def test_local_latency_and_accuracy_belong_to_the_same_file(run: Run, data: Data) -> None:
    rows = {r.stage: r for r in bench(run, data, ["local"], "quick")}
    good, flawed, coreml = (rows[f"bench/{name}@local"] for name in ("onnx-fp32", "onnx-int8", "coreml-fp16"))
    assert good.metrics["top1"] == 1.0
    assert flawed.metrics["top1"] == pytest.approx(1 / 3)  # it swaps red and green
    assert flawed.details["quality"]["passed"] == {"98%": False, "99%": False}
    for row, name in ((good, "onnx-fp32"), (flawed, "onnx-int8")):
        assert row.metrics["valid"] is True and row.metrics["n"] >= 20
        assert row.metrics["min_ms"] <= row.metrics["p50_ms"] <= row.metrics["p90_ms"] <= row.metrics["p99_ms"]
        assert row.details["sha256"] == sha256(run.folder(f"export/{name}") / "model.onnx")
        samples = json.loads((run.folder(row.stage) / "samples.json").read_text())
        assert len(samples["samples_ms"]) == row.metrics["n"] and len(samples["predictions"]) == 12
    assert coreml.metrics == {} and "Apple" in coreml.skipped["latency"] and "Apple" in coreml.skipped["top1"]


def test_finished_rows_are_skipped_and_unmeasured_ones_tried_again(
    run: Run, data: Data, scripted: type[Scripted]
) -> None:
    def no_coreml(artifact: Artifact, plan: TimingPlan) -> Measurement:
        if artifact.target == "coreml":
            return Measurement(artifact.name, artifact.sha256, skipped="not run: no Mac")
        return timed(artifact, plan)

    scripted.answer = staticmethod(no_coreml)  # type: ignore[assignment]
    first = bench(run, data, ["scripted"], "quick")
    again = bench(run, data, ["scripted"], "quick")
    assert scripted.asked == [["coreml-fp16", "onnx-fp32", "onnx-int8"], ["coreml-fp16"]]
    assert [r.started for r in again[1:]] == [r.started for r in first[1:]]
    bench(run, data, ["scripted"], "quick", force=True)
    assert len(scripted.asked[-1]) == 3


def test_a_new_file_is_timed_in_one_session_with_all_others(run: Run, data: Data, scripted: type[Scripted]) -> None:
    def works_from(call: int) -> Callable[[Artifact, TimingPlan], Measurement]:
        def answer(artifact: Artifact, plan: TimingPlan) -> Measurement:
            if artifact.target == "coreml" and len(scripted.asked) < call:
                return Measurement(artifact.name, artifact.sha256, skipped="not run: no Mac")
            return timed(artifact, plan)

        return answer

    every = ["coreml-fp16", "onnx-fp32", "onnx-int8"]
    scripted.answer = staticmethod(works_from(3))  # type: ignore[assignment]
    later = run.folder("export/onnx-int8").rename(run.root / "later")
    bench(run, data, ["scripted"], "quick")
    later.rename(run.folder("export/onnx-int8"))
    with pytest.raises(UserError, match="preset.*--force"):
        bench(run, data, ["scripted"], "standard")
    rows = bench(run, data, ["scripted"], "quick")
    assert scripted.asked == [every[:2], every], "nothing is timed twice for a file that the device cannot run"
    assert {row.details["session"] for row in rows[1:]} == {rows[1].details["session"]}
    assert "onnx-fp32" in rows[2].details["paired"]
    bench(run, data, ["scripted"], "quick")  # now it can
    assert scripted.asked[2:] == [every[:1], every]
    bench(run, data, ["scripted"], "quick")
    assert len(scripted.asked) == 4


def test_another_preset_is_refused_before_anything_is_measured(run: Run, data: Data, scripted: type[Scripted]) -> None:
    bench(run, data, ["scripted"], "quick")
    with pytest.raises(UserError, match="preset.*--force"):
        bench(run, data, ["scripted"], "standard")
    assert len(scripted.asked) == 1


def test_a_device_that_fails_is_said_in_its_rows_and_the_others_run(
    run: Run, data: Data, scripted: type[Scripted]
) -> None:
    def gone(artifact: Artifact, plan: TimingPlan) -> Measurement:
        raise DeviceError("scripted: the cable was pulled")

    scripted.answer = staticmethod(gone)  # type: ignore[assignment]
    with pytest.raises(DeviceError, match="the cable was pulled"):
        bench(run, data, ["scripted", "local"], "quick")
    assert run.result("bench/onnx-fp32@scripted").skipped["latency"] == "not run: scripted: the cable was pulled"  # type: ignore[union-attr]
    assert run.result("bench/onnx-fp32@local").metrics["n"] >= 20  # type: ignore[union-attr]


def test_what_a_device_needs_and_cannot_get_stops_that_device_alone(
    run: Run, data: Data, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(artifact: Artifact, plan: TimingPlan) -> Measurement:
        raise UserError("no compiler for it is installed")

    scripted.answer = staticmethod(lacking)  # type: ignore[assignment]
    with pytest.raises(DeviceError, match="scripted: no compiler"):
        bench(run, data, ["local", "scripted"], "quick")
    assert run.result("bench/onnx-fp32@local").metrics["n"] >= 20  # type: ignore[union-attr]
    assert "no compiler" in run.result("bench/onnx-fp32@scripted").skipped["latency"]  # type: ignore[union-attr]
    assert "no compiler" not in capsys.readouterr().err  # said once, by the command


def test_a_device_that_ran_no_file_fails_the_bench_with_its_reasons(run: Run, data: Data) -> None:
    with pytest.raises(DeviceError, match=r"local:provider=\.\./\.\./x ran no file: .* has no \.\./\.\./x"):
        bench(run, data, ["local:provider=../../x"], "quick")


def test_a_file_that_a_device_could_not_run_fails_the_command_also_where_it_ran_others(
    run: Run, data: Data, scripted: type[Scripted]
) -> None:
    """As with a mistyped execution provider, which one runtime knows nothing of and another refuses."""

    def one_fails(artifact: Artifact, plan: TimingPlan) -> Measurement:
        if artifact.precision == "int8":
            return Measurement(artifact.name, artifact.sha256, skipped="failed: this onnxruntime has no ../../x")
        if artifact.target == "coreml":
            return Measurement(artifact.name, artifact.sha256, skipped="not run: no Mac")
        return timed(artifact, plan)

    scripted.answer = staticmethod(one_fails)  # type: ignore[assignment]
    rows = bench(run, data, ["scripted:tag=1", "scripted"], "quick")
    line = "onnx-int8 was not measured on scripted: this onnxruntime has no ../../x"
    with pytest.raises(GateFailed, match=line):
        require_measured(rows)
    (run.root / "recipe.toml").write_text('[bench]\ndevices = ["scripted"]\n')
    with pytest.raises(GateFailed) as failed:
        require_measured(benched(run))
    assert str(failed.value) == line, "devices that nobody asks for any more are not judged"
    scripted.answer = staticmethod(timed)  # type: ignore[assignment]
    require_measured(bench(run, data, ["scripted"], "quick"))


def test_a_failed_device_does_not_erase_an_earlier_measurement(run: Run, data: Data, scripted: type[Scripted]) -> None:
    bench(run, data, ["scripted"], "quick")

    def gone(artifact: Artifact, plan: TimingPlan) -> Measurement:
        raise DeviceError("scripted: gone")

    scripted.answer = staticmethod(gone)  # type: ignore[assignment]
    with pytest.raises(DeviceError):
        bench(run, data, ["scripted"], "quick", force=True)
    assert run.result("bench/onnx-fp32@scripted").metrics["n"] == 30  # type: ignore[union-attr]


def test_a_mistyped_device_is_gone_with_the_next_bench_and_what_was_measured_stays(
    run: Run, data: Data, scripted: type[Scripted]
) -> None:
    answer = scripted.answer

    def gone(artifact: Artifact, plan: TimingPlan) -> Measurement:
        raise DeviceError("scripted: nobody answers")

    scripted.answer = staticmethod(gone)  # type: ignore[assignment]
    with pytest.raises(DeviceError):
        bench(run, data, ["scripted:tag=tpyo"], "quick")
    assert any("tpyo" in name for name in run.results("bench"))
    scripted.answer = staticmethod(answer)  # type: ignore[assignment]
    bench(run, data, ["scripted"], "quick")
    assert not any("tpyo" in name for name in run.results("bench"))
    bench(run, data, ["local"], "quick")
    assert {name.partition("@")[2] for name in run.results("bench")} == {"scripted", "local"}


@pytest.mark.parametrize(("right", "passed"), [(12, (True, True)), (11, (False, False))])
def test_quality_gates_compare_with_fp32_on_the_same_device(
    run: Run, data: Data, scripted: type[Scripted], right: int, passed: tuple[bool, bool]
) -> None:
    def answer(artifact: Artifact, plan: TimingPlan) -> Measurement:
        return timed(artifact, plan, right if artifact.precision == "int8" else 12)

    scripted.answer = staticmethod(answer)  # type: ignore[assignment]
    bench(run, data, ["scripted"], "quick")
    quality = run.result("bench/onnx-int8@scripted").details["quality"]  # type: ignore[union-attr]
    assert tuple(quality["passed"].values()) == passed
    assert quality["ratio"] == pytest.approx(right / 12)


def test_an_untimed_run_gives_accuracy_and_no_latency(run: Run, data: Data, scripted: type[Scripted]) -> None:
    def numerics(artifact: Artifact, plan: TimingPlan) -> Measurement:
        outputs = np.eye(3, dtype=np.float32)[colours()[1]]
        return Measurement(artifact.name, artifact.sha256, outputs=outputs, not_timed="not run: emulated")

    scripted.answer = staticmethod(numerics)  # type: ignore[assignment]
    row = bench(run, data, ["scripted"], "quick")[0]
    assert row.metrics["top1"] == 1.0
    assert row.skipped == {"latency": "not run: emulated"}
    assert not any(key.endswith("_ms") for key in row.metrics)


def test_images_without_labels_are_timed_without_accuracy(run: Run, data: Data) -> None:
    images, labels = colours()
    unlabelled = ArrayImages(images, np.full_like(labels, -1), [str(i) for i in range(12)])
    nothing = unlabelled.subset([])
    rows = bench(run, Data("x", (), SPEC, unlabelled, nothing, nothing), ["scripted"], "quick")
    assert "top1" not in rows[0].metrics and rows[0].skipped["top1"] == "not run: no labelled test images"
    assert rows[0].metrics["n"] == 30


def test_a_run_without_exports_says_what_to_do(tmp_path: Path, data: Data) -> None:
    with pytest.raises(UserError, match="softedge export"):
        bench(Run(tmp_path), data, ["local"], "quick")


def test_agreement_is_with_the_answers_of_the_check_whatever_was_benched_before(run: Run, data: Data) -> None:
    """The checked file answered 3 of 12 images otherwise than the devices do; two of the images it was not asked."""
    digest, classes = sha256(run.folder("export/onnx-fp32") / "model.onnx"), colours()[1].tolist()
    for name in ("scripted", "scripted:tag=other"):
        assert not any("agreement_local" in row.metrics for row in bench(run, data, [name], "quick"))  # not known
    wrong = [(answer + 1) % 3 for answer in classes[:3]] + classes[3:10]
    names = [f"picture {i}" for i in range(10)]
    answers.write(run.folder("check"), names, {"onnx-fp32": (digest, wrong), "onnx-int8": ("another file", wrong)})
    for name in ("scripted", "scripted:tag=other"):
        rows = {row.details["artifact"]: row for row in bench(run, data, [name], "quick", force=True)}
        assert rows["onnx-fp32"].metrics["agreement_local"] == pytest.approx(7 / 10)
        assert "agreement_local" not in rows["onnx-int8"].metrics
