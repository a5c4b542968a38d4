"""Where the float part of an int8 file may end, on graphs written by hand."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from softedge.export.onnx import graph as onnx_graph
from softedge.export.onnx import quantizer as onnx_int8
from softedge.export.onnx import ranges as onnx_ranges
from softedge.export.onnx import rewrite as onnx_rewrite
from softedge.export.onnx.speed import choose, fast_enough, pick, prefixes


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


def test_the_shortest_float_part_wins_unless_a_longer_one_is_faster_or_clearly_nearer_to_float():
    times = {"none": 1.02, "stem": 1.0, "block": 1.01}
    assert pick(times, {}) == "none", "2 % are noise"
    assert pick({**times, "none": 1.05}, {}) == "stem"
    assert pick(times, {"none": 19.0, "stem": 19.6, "block": 19.9}) == "none"
    assert pick(times, {"none": 19.0, "stem": 27.2, "block": 27.5}) == "stem"


def test_no_float_part_is_bought_with_a_file_slower_than_fp32():
    times = {"none": 0.80, "stem": 0.83, "block": 0.90}
    assert fast_enough(times, base=1.0) == ["none", "stem"]
    assert fast_enough({"none": 0.99, "stem": 1.02, "block": 1.03}, base=1.0) == ["none"]
    assert fast_enough({"none": 1.20, "stem": 1.21, "block": 1.24}, base=1.0) == ["none", "stem"]


def test_the_float_part_is_chosen_among_the_fast_ones_by_what_the_quantized_graph_answers(deployed, pictures):
    fp32 = onnx_graph.trace(deployed)
    graph = onnx_rewrite.for_integers(fp32)
    ranges = onnx_ranges.measure(graph, pictures, "minmax")
    known = {scheme: 10.0 * len(scheme) for scheme in prefixes(graph).values()}
    choice = choose(fp32, graph, ranges, pictures[:1], 0.2, lambda scheme: known[scheme.float_nodes])
    assert choice.closeness == {
        name: known[names] for name, names in prefixes(graph).items() if name in choice.closeness
    }
    assert choice.scheme.float_nodes == max((prefixes(graph)[name] for name in choice.closeness), key=len)
    made = onnx_int8.quantize(graph, ranges, choice.scheme)
    read = {name for node in made.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in made.graph.node:
        assert node.name not in choice.scheme.float_nodes or not read.intersection(node.input[:1])
