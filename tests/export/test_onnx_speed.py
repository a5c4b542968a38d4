"""Where the float part of an int8 file may end, on graphs written by hand."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from softedge.export.onnx_speed import prefixes


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
