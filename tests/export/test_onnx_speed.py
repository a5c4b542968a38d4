"""Where the float part of an int8 file may end, on graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from softedge.export.nearest import Judge, nearest
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx import speed
from softedge.export.onnx.candidates import OnnxCandidates
from softedge.export.onnx.speed import Race, prefixes, race


def graph(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 8, 8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [image], [out]))


def conv(name: str, source: str, to: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"model.{name}.weight"], [to], name=name)


def test_the_float_part_ends_where_one_tensor_goes_on_and_never_inside_a_residual_block():
    nodes = [helper.make_node("Mul", ["image", "scale"], ["x"], name="normalise"), conv("stem", "x", "s")]
    nodes += [conv("a", "s", "t"), conv("b", "t", "u"), helper.make_node("Add", ["s", "u"], ["v"], name="add")]
    nodes += [conv(f"c{i}", "v" if i == 0 else f"w{i - 1}", f"w{i}") for i in range(20)]
    found = prefixes(graph(nodes))
    assert list(found)[:3] == ["stem", "a", "c0"], "between a and b the residual is alive as well"
    assert found["stem"] == {"normalise"}
    assert found["c0"] == {"normalise", "stem", "a", "b", "add"}


def test_a_preprocessing_with_a_branch_is_still_a_float_part():
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["x"], name="normalise"),
        helper.make_node("ReduceMean", ["x"], ["m"], name="mean"),
        conv("stem", "x", "s"),
        helper.make_node("Add", ["s", "m"], ["out"], name="add"),
    ]
    assert prefixes(graph(nodes)) == {"stem": frozenset({"normalise", "mean"})}


def measured(**times):
    return Race({name: np.full(40, value) for name, value in times.items()})


def test_no_float_part_is_bought_with_a_file_slower_than_fp32():
    def fast_enough(base, *times):
        race = measured(fp32=base, **dict(zip(("none", "stem", "block"), times)))
        return race.fast_enough(["none", "stem", "block"], "fp32")

    assert fast_enough(1.0, 0.80, 0.83, 0.90) == ["none", "stem"]
    assert fast_enough(1.0, 0.99, 1.02, 1.03) == ["none"]
    assert fast_enough(1.0, 1.20, 1.21, 1.24) == ["none", "stem"]
    assert fast_enough(1.5, 1.20, 1.00, 1.01) == ["stem", "block"], "the default is clearly too slow"


def test_what_is_not_clear_is_decided_for_the_default():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.9, 1.1, 40)
    steady = {"fp32": 2 * base, "none": base, "stem": 1.02 * base}
    assert Race(steady).fast_enough(["none", "stem"], "fp32") == ["none", "stem"], "both are slow in the same rounds"
    doubtful = steady | {"stem": 1.04 * base * rng.uniform(0.9, 1.1, 40)}
    assert Race(doubtful).ratio("stem", "none").high > 1.05
    assert Race(doubtful).fast_enough(["none", "stem"], "fp32") == ["none"]
    useless = steady | {"stem": 0.5 * base * rng.uniform(0.3, 3, 40)}
    assert Race(useless).fast_enough(["none", "stem"], "fp32") == ["none"], "too noisy to say anything"


def test_the_interval_of_a_ratio_holds_its_median_in_nineteen_cases_of_twenty():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        ratio = Race({"a": rng.lognormal(0.1, 0.2, 31), "b": np.ones(31)}).ratio("a", "b")
        held += ratio.low <= np.exp(0.1) <= ratio.high
    assert 0.93 <= held / 400 <= 0.99


def test_time_that_other_processes_take_is_not_counted(deployed, pictures, monkeypatch):
    """The clock of the wall is not asked at all."""

    def wall():
        raise AssertionError("wall-clock time")

    for name in ("perf_counter", "monotonic", "time"):
        monkeypatch.setattr(speed.time, name, wall)
    fp32 = onnx_graph.trace(deployed)
    samples = race({"one": fp32, "two": fp32}, pictures[:1], 0.05).samples
    assert len(samples["one"]) == len(samples["two"]) >= 9 and (samples["one"] > 0).all()


def test_of_the_fast_beginnings_the_one_that_answers_like_fp32_is_taken(deployed, pictures, monkeypatch):
    graph = onnx_rewrite.for_integers(onnx_graph.trace(deployed))
    places = prefixes(graph)
    all_fast = lambda models, *rest: measured(**dict.fromkeys(models, 1.0))  # noqa: E731
    monkeypatch.setattr(speed, "race", all_fast)
    options = OnnxCandidates(deployed, pictures)
    made = {option.tier: option.model.scheme.float_nodes for option in options.calibrations()}
    assert list(made.values()) == list(places.values())
    choice = nearest(options, Judge.of(deployed, options.comparison()))
    best = {tier: max(db for what, db in choice.tried.items() if what.endswith(f"until {name}"))
            for tier, name in enumerate(places)}  # fmt: skip
    assert choice.option.tier == next(tier for tier, db in best.items() if db >= max(best.values()) - 1)
    about = choice.option.details["speed"]
    assert about["float_until"] == list(places)[choice.option.tier] and about["interval"] == [1.0, 1.0]
    made = options.with_float(choice.option, ()).model.model()
    read = {name for node in made.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in made.graph.node:
        assert node.name not in choice.option.model.scheme.float_nodes or not read.intersection(node.input[:1])
