"""Where the float part of an int8 file may end, on graphs written by hand."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from softedge.errors import UserError
from softedge.export.onnx import candidates as onnx_candidates
from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx import ranges as onnx_ranges
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx import speed as onnx_speed
from softedge.export.onnx.format import Onnx
from softedge.export.onnx.speed import Race, beginnings, fixed, prefixes, race, raced


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


def timed(**times: float) -> Race:
    return Race({name: np.full(30, value) for name, value in times.items()})


def test_no_float_part_is_bought_with_a_file_slower_than_fp32():
    names = ["none", "stem", "block"]
    assert timed(none=0.80, stem=0.83, block=0.90, fp32=1.0).fast_enough(names, "fp32") == ["none", "stem"]
    assert timed(none=0.99, stem=1.02, block=1.03, fp32=1.0).fast_enough(names, "fp32") == ["none"]
    assert timed(none=1.20, stem=1.21, block=1.24, fp32=1.0).fast_enough(names, "fp32") == ["none", "stem"]


def test_the_default_gives_way_only_to_what_is_clearly_faster_and_stays_where_the_measurement_is_noisy():
    names = ["none", "stem"]
    assert timed(none=1.2, stem=1.0, fp32=2.0).fast_enough(names, "fp32") == ["stem"]
    noise = np.random.default_rng(0).uniform(0.2, 3.0, (3, 30))
    assert Race(dict(zip([*names, "fp32"], noise))).fast_enough(names, "fp32") == ["none"]


def test_a_ratio_that_the_machine_was_too_busy_to_measure_is_no_number():
    """Pairs of one file against itself under a load that changes by the second."""
    busy = np.random.default_rng(0).uniform(0.3, 3.0, (2, 30))
    noted = Race({"int8": busy[0], "fp32": busy[1]}).ratio("int8", "fp32").noted()
    assert list(noted) == ["not_measured"] and "machine too busy" in noted["not_measured"]
    still = Race({"int8": np.full(30, 0.47), "fp32": np.ones(30)}).ratio("int8", "fp32")
    assert still.noted() == {"time_over_fp32": 0.47, "interval": [0.47, 0.47]}


def test_the_race_is_timed_by_the_processor_time_of_its_own_thread(deployed, pictures, monkeypatch):
    """Wall time on a shared machine gave 0.95 to 1.26 for a file against itself."""
    model, asked = onnx_graph.trace(deployed), []
    monkeypatch.setattr(onnx_speed, "raced", lambda runs, seconds, clock: asked.append((list(runs), seconds, clock)))
    race({"one": model, "other": model}, pictures[:1], 0.5)
    assert asked == [(["one", "other"], 0.5, time.thread_time)]


def test_each_run_is_timed_alone_in_every_round_by_the_clock_that_is_given():
    now, order = [0.0], []

    def taking(seconds, name):
        def run():
            now[0] += seconds
            order.append(name)

        return run

    found = raced({"slow": taking(0.02, "slow"), "fast": taking(0.005, "fast")}, 1.0, lambda: now[0])
    assert found.samples["slow"] == pytest.approx(20.0) and found.samples["fast"] == pytest.approx(5.0)
    assert found.ratio("fast", "slow").noted() == {"time_over_fp32": 0.25, "interval": [0.25, 0.25]}
    assert len(found.samples["slow"]) == len(found.samples["fast"]) == 40  # rounds that fit into the second
    rounds = np.array(order[6:]).reshape(-1, 2)  # three runs of each to warm up
    assert set(rounds[:, 0]) == set(rounds[:, 1]) == {"slow", "fast"}, "not always in one order"


def test_a_float_part_is_in_float_and_a_named_one_needs_no_measurement(deployed, pictures):
    fp32 = onnx_graph.trace(deployed)
    graph = onnx_rewrite.for_integers(fp32)
    ranges = onnx_ranges.measure(graph, pictures, "minmax")
    places = prefixes(graph)
    for beginning in beginnings(fp32, graph, ranges, pictures[:1], 0.2):
        assert beginning.scheme.float_nodes == places[beginning.until]
        made = onnx_int8.quantize(graph, ranges, beginning.scheme)
        read = {name for node in made.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
        for node in made.graph.node:
            assert node.name not in beginning.scheme.float_nodes or not read.intersection(node.input[:1])
    last = list(places)[-1]
    assert fixed(graph, last).scheme.float_nodes == places[last]
    with pytest.raises(UserError, match="export.float_prefix is 'nowhere', no place in this network"):
        fixed(graph, "nowhere")


def test_without_timing_nothing_is_raced_and_every_layer_is_in_integers(deployed, pictures, monkeypatch):
    monkeypatch.setattr(onnx_candidates, "beginnings", lambda *arguments: pytest.fail("a choice by time"))
    made = Onnx(safe=True).without_timing()
    options = list(made.candidates(deployed, "int8", pictures[:8]).calibrations())
    assert made.safe and options and all(option.model.scheme.reduce_range for option in options)
    assert all(option.model.scheme.float_nodes == frozenset() for option in options)
