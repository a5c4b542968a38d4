"""The whole path on generated images: every stage is real, done once, and survives being started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from pictures import stripes

import softedge
from softedge import registry
from softedge.cli import main
from softedge.errors import GateFailed, UserError
from softedge.export.onnx.format import Onnx

TINY = [
    "data.size=32",
    "data.workers=0",
    "backbone.name=mobilenetv3_small_050",
    "ssl.epochs=2",
    "ssl.batch=16",
    "ssl.queue=32",
    "ssl.neighbors=4",
    "ssl.projector=[32, 16]",
    "ssl.knn_every=0",
    "optim.lr=0.03",
    "optim.warmup_epochs=0",
    "probe.few_labels=3",
    "finetune.epochs=1",
    "finetune.min_steps=8",
    "finetune.batch=16",
    "export.calibration_images=24",
    "check.max_drop=1.0",
    "check.min_agreement=0.0",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos with spaces")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("horizontal", "vertical", "diagonal")):
        (folder / name).mkdir()
        for index in range(24):
            stripes(rng, label).save(folder / name / f"{index:02d}.png")
    (folder / "vertical" / "broken.png").write_bytes((folder / "vertical" / "00.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def deployed(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stripes"
    softedge.deploy(data=str(photos), recipe="light-moco", out=out, targets=["onnx"], set=TINY)
    return out


def test_a_deployment_leaves_every_file_of_the_run_folder(deployed):
    for name in (
        "recipe.toml data/index.json data/result.json pretrain/metrics.jsonl pretrain/backbone.safetensors "
        "pretrain/result.json probe/classifier.safetensors probe/result.json export/onnx-fp32/model.onnx "
        "export/onnx-fp32/contract.json export/onnx-int8/model.onnx export/onnx-int8/result.json check/result.json "
        "finetune/result.json baselines/result.json map/result.json map/map.json map/thumbnails.jpg "
        "bench/onnx-int8@local/result.json bench/onnx-int8@local/samples.json report.html report.json MODEL_CARD.md"
    ).split():
        assert (deployed / name).is_file(), name


def test_the_broken_image_is_set_aside_and_counted(deployed):
    metrics = json.loads((deployed / "data" / "result.json").read_text())["metrics"]
    assert metrics["n_bad"] == 1
    assert metrics["n_train"] + metrics["n_test"] == 72
    assert "broken.png" in (deployed / "report.json").read_text()


def test_the_exported_file_answers_like_the_checkpoint_on_the_test_images(deployed):
    """Read back by onnxruntime itself, against PyTorch fed by Pillow: none of softedge's own export code in between."""
    import onnxruntime
    import torch

    from softedge import backbones
    from softedge.data import load
    from softedge.run import Run

    data = load(Run(deployed))
    images = data.test.prepared(data.spec)
    session = onnxruntime.InferenceSession(deployed / "export" / "onnx-fp32" / "model.onnx")
    probabilities = session.run(None, {"image": images})[0]
    chosen = json.loads((deployed / "baselines" / "result.json").read_text())["details"]["classifier"]
    model = backbones.load_classifier(deployed / chosen / "classifier.safetensors")
    mean, std = torch.tensor(data.spec.mean), torch.tensor(data.spec.std)
    with torch.no_grad():
        inputs = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = model(inputs).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_a_second_start_does_nothing_again(deployed, photos):
    before = {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")}
    softedge.deploy(data=str(photos), recipe="light-moco", out=deployed, targets=["onnx"], set=TINY)
    assert {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")} == before


def test_the_run_folder_alone_is_enough_to_go_on(deployed, capsys):
    before = {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")}
    softedge.deploy(out=deployed)
    said = capsys.readouterr().err
    assert f"{deployed} resumes as it was begun, with --targets onnx, --set data.size=32, " in said
    assert "limit kept from an earlier start: --min-agreement 0.0 (--min-agreement 0.98 is the default)" in said
    assert {p: p.stat().st_mtime_ns for p in deployed.rglob("result.json")} == before


@pytest.mark.parametrize("command", [["deploy", "--out"], ["report"]])
def test_deploy_and_report_end_with_the_verdict_and_the_cautions_of_the_report(deployed, capsys, command):
    with pytest.raises(SystemExit):
        main([*command, str(deployed)])
    said = capsys.readouterr().out.replace("\u202f", " ").splitlines()
    decided = json.loads((deployed / "report.json").read_text())["runs"][0]["verdict"]
    pick, cautions = decided["picks"][0], decided["cautions"]
    expected = [f"verdict: {pick['answer']} {pick['reason']}", *(f"caution: {line}" for line in cautions)]
    place = f"softedge bench {deployed}"  # the report leaves out where the run is stored
    expected = [line.replace("\u202f", " ").replace(f"softedge bench {deployed.name}", place) for line in expected]
    assert cautions and said[-len(expected) :] == expected


def test_another_recipe_is_refused_and_nothing_is_lost(deployed, photos):
    weights = (deployed / "pretrain" / "backbone.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"another recipe.*ssl.epochs: 2 -> 3"):
        softedge.deploy(data=str(photos), recipe="light-moco", out=deployed, set=[*TINY, "ssl.epochs=3"])
    assert (deployed / "pretrain" / "backbone.safetensors").read_bytes() == weights


@pytest.mark.parametrize("data", [None, "photos/"])
def test_an_update_of_no_run_trains_nothing(data, tmp_path, monkeypatch):
    """Without --out it was a training on the embedded digits, exit code 0."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--update trains a run again on the images as they are now; name the run"):
        softedge.deploy(data, update=True)
    assert not list(tmp_path.iterdir())


def test_a_gate_that_fails_says_which_file(copy):
    softedge.check(copy, set=["check.max_size=1000", "check.doctor=false"], force=True)
    with pytest.raises(GateFailed, match=r"onnx-int8.*1,?000"):
        softedge.gate(copy)


def test_verify_replays_the_golden_images(deployed):
    softedge.verify(deployed / "export" / "onnx-int8")


def test_unlabelled_images_alone_give_a_feature_extractor(photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(photos.glob("*/[0-9]*.png"))):
        (flat / f"{index}.png").write_bytes(path.read_bytes())
    run = softedge.deploy(
        data=str(flat), recipe="light-moco", out=tmp_path / "run", targets=["onnx"], precisions=["fp32"], set=TINY
    )
    contract = json.loads((run.root / "export" / "onnx-fp32" / "contract.json").read_text())
    assert "features" in json.dumps(contract["output"])
    assert run.result("probe") is None
    softedge.export(run.root, precisions=["fp16"])  # chooses features as deploy does
    assert "features" in (run.root / "export" / "onnx-fp16" / "contract.json").read_text()
    with pytest.raises(UserError, match="has no labelled images, and so no classifier to export; give --output feat"):
        softedge.export(run.root, output="probabilities")
    for name in ("report.html", "report.json", "MODEL_CARD.md"):  # passed on, they do not show where the images lie
        assert str(flat.parent) not in (run.root / name).read_text()


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def copy(deployed, tmp_path) -> Path:
    """The deployed run, to be changed."""
    return Path(shutil.copytree(deployed, tmp_path / "copy"))


def test_a_deployment_that_is_too_slow_exits_with_one_and_names_the_file(copy, capsys):
    assert command("deploy", "--out", copy, "--max-p90", "0.0001") == 1
    said = capsys.readouterr()
    assert re.search(r"^failed: onnx-int8(, [\w-]+)*: p90 .* above the limit of 0.0001 ms", said.err, re.MULTILINE)
    assert "FAILED" in said.out and (copy / "report.html").is_file()
    assert command("deploy", "--out", copy, "--max-p90", "100000") == 0


def test_check_after_bench_sees_the_new_numbers(copy, capsys):
    assert command("check", copy, "--max-p90", "400", "--max-drop", "1", "--min-agreement", "0") == 0
    path = copy / "bench" / "onnx-int8@local" / "result.json"
    timed = json.loads(path.read_text())
    timed["metrics"]["p90_ms"] = 500.0
    path.write_text(json.dumps(timed))
    assert command("check", copy, "--max-p90", "400") == 1
    said = capsys.readouterr()
    assert "check: already done, skipped" in said.err
    assert "onnx-int8: p90 500.00 ms on local above the limit of 400 ms" in said.err
    assert command("bench", copy, "--force") == 0
    assert command("check", copy, "--max-p90", "400") == 0


class Impossible(Onnx):
    """A format that this machine cannot make."""

    name = "impossible"

    def missing(self) -> str:
        return "exporting to Impossible needs a program that is not here"


def test_a_format_that_could_not_be_made_is_in_the_table_and_exits_with_one(copy, capsys, monkeypatch):
    monkeypatch.setitem(registry.FORMATS, "impossible", f"{__name__}:Impossible")
    asked = ("export", copy, "--targets", "onnx,impossible", "--precisions", "fp32")
    assert command(*asked) == 1
    said = capsys.readouterr()
    assert "not run: impossible-fp32: exporting to Impossible needs a program" in said.out
    assert "failed: impossible-fp32 was not made: exporting to Impossible needs a program" in said.err
    assert command(*asked, "--allow-missing") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_stage_says_one_line_and_is_done_by_the_next_start(copy, capsys, monkeypatch, number, code):
    with monkeypatch.context() as patch:
        patch.setattr("softedge.stages.knn.extract", lambda *_: os.kill(os.getpid(), number))
        assert command("knn", copy) == code
    said = capsys.readouterr().err
    stopped = "stopped: what was finished is kept; run the same command again to go on"
    assert said.splitlines() == ["data: already done, skipped", stopped]
    assert not (copy / "knn" / "result.json").exists()
    assert command("knn", copy) == 0 and (copy / "knn" / "result.json").exists()


def test_the_commands_stay_functions_after_the_packages_of_their_names_were_imported(tmp_path):
    import softedge.bench
    import softedge.export
    import softedge.report

    for call in (softedge.export, softedge.bench, softedge.report, softedge.probe):
        for _ in range(2):
            with pytest.raises(UserError, match="not a softedge run"):
                call(tmp_path)
    assert set(softedge.__all__) <= set(dir(softedge))
