"""Whatever the files of a run and those that users give hold, their readers answer or say one line."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softedge import backbones, config
from softedge.bench import imported
from softedge.errors import UserError, exit_code_and_line
from softedge.export import contract
from softedge.records import InputSpec, Outcome
from softedge.run import Run, perform, read_json, sha256
from softedge.ssl.journal import Journal
from softedge.weights import checkpoints
from softedge.weights.files import read_state

FEW = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def edited(draw: st.DrawFn, values: Any) -> Any:
    """Plain values with one of them, at any depth, replaced or removed."""
    values = copy.deepcopy(values)
    at = values
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return values
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or draw(st.booleans()):
            break
        at = at[key]
    if draw(st.booleans()):
        at[key] = draw(ANYTHING)
    else:
        del at[key]
    return values


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """A file with bytes exchanged, and cut, repeated or with a hole."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 6))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    kind = draw(st.sampled_from(["whole", "cut", "hole", "twice"]))
    parts = {"whole": changed, "cut": changed[:stop], "hole": changed[:start] + changed[stop:]}
    return bytes(parts.get(kind, changed[:stop] + changed[start:]))


def one_line(read: Callable[[], Any], *expected: type[Exception]) -> None:
    """Call a reader; an error must be of the expected kind, and what the terminal shows of it one printable line."""
    try:
        read()
    except expected as error:
        assert str(error).isprintable() and str(error)
    except UserError as error:
        code, line = exit_code_and_line(error) or (0, "")
        # Spaces of every kind are shown as they are; what moves the cursor or ends a line is not.
        assert code == 2 and not {unicodedata.category(c) for c in line} & {"Cc", "Cs", "Zl", "Zp"}


RESULT = {
    "schema": 1,
    "stage": "probe",
    "name": "r",
    "metrics": {"top1": 0.5},
    "recipe": {"a": 1},
    "inputs": {"x": "h"},
    "environment": {"os": "x"},
    "started": "2026",
    "seconds": 1.5,
    "details": {"rows": [1]},
    "skipped": {},
}


def read_results(root: Path, text: str, begun: str) -> None:
    run = Run(root)
    for name, content in (("probe/result.json", text), ("knn/begun.json", begun)):
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_text(content)
    one_line(lambda: run.result("probe"))
    for stage in ("probe", "knn"):
        do = {"recipe": {"a": 1}, "inputs": {"x": "h"}, "resumable": True}
        one_line(lambda stage=stage, do=do: perform(run, stage, lambda _: Outcome(), **do))
        assert perform(run, stage, lambda _: Outcome({"n": 1}), **do, force=True).metrics == {"n": 1}


BEGUN = {"recipe": {"a": 1}, "inputs": {"x": "h"}, "start": {"started": "2026", "spent": 0.0, "at": 1.0}}


@FEW
@given(result=edited(RESULT), begun=edited(BEGUN))
def test_a_damaged_result_is_one_line_and_can_be_made_again(tmp_path: Path, result: Any, begun: Any) -> None:
    read_results(tmp_path, json.dumps(result), json.dumps(begun))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", "\x00" * 9, "[" * 100_000, '{"stage": "probe"}'])
def test_a_result_of_another_kind_is_one_line_and_can_be_made_again(tmp_path: Path, text: str) -> None:
    read_results(tmp_path, text, text)


def test_a_result_of_a_later_softedge_is_not_called_damaged_and_not_read(tmp_path: Path) -> None:
    """It was read as one of today's, whatever the later layout means."""
    path = tmp_path / "probe" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**RESULT, "schema": 2, "a later key": 1}))
    with pytest.raises(
        UserError, match=r"written by a later softedge \(schema 2, this one reads 1\); use that one, or"
    ):
        Run(tmp_path).result("probe")
    path.write_text(json.dumps({**RESULT, "a later key": 1}))  # a key that came since means nothing here
    assert Run(tmp_path).need("probe", "probe").metrics == {"top1": 0.5}


@pytest.mark.slow
@MANY
@given(result=edited(RESULT), begun=edited(BEGUN))
def test_many_damaged_results(tmp_path: Path, result: Any, begun: Any) -> None:
    read_results(tmp_path, json.dumps(result), json.dumps(begun))


def exported(folder: Path) -> dict[str, Any]:
    """The smallest folder that passes for an export, and its contract."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"model")
    golden: dict[str, Any] = {"names": ["p"]}
    for name in ("images", "expected", "pytorch"):
        array = np.zeros((1, 32, 32, 3), np.uint8) if name == "images" else np.zeros((1, 2), np.float32)
        np.save(folder / f"golden/{name}.npy", array)
        golden[name] = {"file": f"golden/{name}.npy", "sha256": sha256(folder / f"golden/{name}.npy")}
    spec = InputSpec(32, 36, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).to_dict()
    return {
        "schema": contract.SCHEMA,
        "model": "model.onnx",
        "files": ["model.onnx"],
        "target": "onnx",
        "sha256": contract._sha256([folder / "model.onnx"]),
        "precision": "fp32",
        "size_bytes": 5,
        "input": {"dtype": "uint8", "layout": "NHWC", "color": "RGB", "shape": ["N", 32, 32, 3]},
        "preprocessing": spec,
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["N", 2]},
        "tolerance": {"replay": 1e-4},
        "labels": ["a", "b"],
        "golden": golden,
    }


def read_contract(folder: Path, values: Any) -> None:
    (folder / contract.FILE).write_text(json.dumps(values))
    one_line(lambda: contract.read(folder))
    one_line(lambda: contract.read_golden(folder))


def test_the_contract_of_these_tests_is_a_sound_one(tmp_path: Path) -> None:
    (tmp_path / contract.FILE).write_text(json.dumps(exported(tmp_path)))
    assert contract.read(tmp_path).name == "onnx-fp32"
    assert contract.read_golden(tmp_path).names == ("p",)


@FEW
@given(data=st.data())
def test_a_damaged_contract_is_one_line(tmp_path: Path, data: st.DataObject) -> None:
    read_contract(tmp_path, data.draw(edited(exported(tmp_path))))


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_many_damaged_contracts(tmp_path: Path, data: st.DataObject) -> None:
    read_contract(tmp_path, data.draw(edited(exported(tmp_path))))


TOML = config.to_toml(config.build({})).encode()


def read_recipe(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    one_line(lambda: config.load(str(path)))


@FEW
@given(content=damaged(TOML))
def test_a_damaged_recipe_is_a_recipe_or_one_line(tmp_path: Path, content: bytes) -> None:
    read_recipe(tmp_path / "recipe.toml", content)


@pytest.mark.slow
@MANY
@given(content=damaged(TOML))
def test_many_damaged_recipes(tmp_path: Path, content: bytes) -> None:
    read_recipe(tmp_path / "recipe.toml", content)


@FEW
@given(values=edited(config.build({}).model_dump(mode="json")))
def test_values_of_other_kinds_in_a_recipe_are_one_line(values: Any) -> None:
    one_line(lambda: config.build(values))


@pytest.mark.parametrize(
    "text",
    ["seed=-1", "seed=99999999999999999999999999", "augment.blur_sigma=[nan, 1]", "optim.lr=inf", "x=" + "[" * 50_000],
)
def test_a_number_that_no_training_can_use_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=text.partition("=")[0]):
        config.build({}, [text])


SPEC = InputSpec(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small files of weights: safetensors of softedge and of others, and torch's."""
    folder = tmp_path_factory.mktemp("weights")
    from safetensors.torch import save_file

    state = {"stem.weight": torch.arange(6.0).view(2, 3), "stem.bias": torch.zeros(2)}
    save_file(state, folder / "a.safetensors", metadata={"softedge": json.dumps({"kind": "backbone"})})
    torch.save({"state_dict": state}, folder / "a.pth")
    checkpoints.write(folder / "a.pt", state)
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def read_weights(folder: Path, suffix: str, content: bytes) -> None:
    path = folder / f"a{suffix}"
    path.write_bytes(content)
    one_line(lambda: read_state(path))
    one_line(lambda: backbones.describe(path))
    one_line(lambda: checkpoints.read(path), checkpoints.Damaged)


@FEW
@given(data=st.data())
def test_damaged_weights_are_one_line(tmp_path: Path, weights: dict[str, bytes], data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(weights)))
    read_weights(tmp_path, suffix, data.draw(damaged(weights[suffix])))


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_many_damaged_weights(tmp_path: Path, weights: dict[str, bytes], data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(weights)))
    read_weights(tmp_path, suffix, data.draw(damaged(weights[suffix])))


OUTPUTS = [
    b"[Step 11/11] Dumping statistics report\nCount: 120 iterations\nMedian: 1.52 ms\nAverage: 1.6 ms\nMin: 1.4 ms\n",
    b"Average inference time cost: 2.5 ms\nP50 Latency: 0.0024 s\nTotal inference requests: 100\n",
    b"Inference timings in us: Init: 100, First inference: 900, Warmup (avg): 500, Inference (avg): 480.5\n"
    b"count=50 first=500 curr=480 min=470 max=600 avg=480.5 std=7\n",
    b'{"execution_results": {"avg latency": "1.5", "latency (ms)": "1.4"}, "cmd_options": {}}',
]


def read_output(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    one_line(lambda: imported.read(path))


@FEW
@given(content=st.sampled_from(OUTPUTS).flatmap(damaged))
def test_a_damaged_output_of_a_tool_is_numbers_or_one_line(tmp_path: Path, content: bytes) -> None:
    read_output(tmp_path / "output", content)


@pytest.mark.slow
@MANY
@given(content=st.sampled_from(OUTPUTS).flatmap(damaged))
def test_many_damaged_outputs_of_tools(tmp_path: Path, content: bytes) -> None:
    read_output(tmp_path / "output", content)


@pytest.mark.parametrize(
    "text", ["[]", '{"execution_results": []}', '{"execution_results": {"a": 1}, "cmd_options": []}']
)
def test_json_of_another_kind_is_no_output_of_a_tool(tmp_path: Path, text: str) -> None:
    (tmp_path / "output").write_text(text)
    with pytest.raises(UserError, match="holds no latency"):
        imported.read(tmp_path / "output")


@pytest.mark.parametrize("cut", [b"\x00" * 20, b"\xff\xfe", b"[]", b"{}", b'{"step": "3"', b"3"])
def test_the_end_of_a_curve_that_a_crash_has_cut_is_dropped(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n' + cut)
    journal = Journal(path)
    journal.keep_until(5)
    assert journal.entries == [{"step": 1, "loss": 2.0}]
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_json_that_is_nested_too_deep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("stage", ["probe", "export/onnx-fp32"])
def test_what_to_do_about_a_damaged_result_does_it(tmp_path: Path, stage: str) -> None:
    """Parts of a stage are looked at beside others, by commands whose --force would stop at them."""
    folder = tmp_path / stage
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    with pytest.raises(UserError, match=f"delete {folder}, and repeat its stage") as caught:
        Run(tmp_path).result(stage)
    assert ("--force" in str(caught.value)) == (stage == "probe")
    perform(Run(tmp_path), stage, lambda _: Outcome(), recipe={}, inputs={}, force=True)
    assert Run(tmp_path).result(stage)
