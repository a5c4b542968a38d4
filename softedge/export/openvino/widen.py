"""Networks with weights or arithmetic in 16 bits, in 32: NNCF looks at float32 weights and replaces them."""

from __future__ import annotations

from typing import Any

import numpy as np

HALF = ("f16", "bf16")


def widened(network: Any) -> Any:
    """The same network in float32, changed in place; an input or output in 16 bits stays one, with a Convert at it."""
    import openvino as ov

    ends = [element_type(port) for port in (*network.inputs, *network.outputs)]
    for node in network.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant" and element_type(node.output(0)) in HALF:
            _widen_constant(node)
        elif kind == "Convert" and element_type(node.output(0)) in HALF:
            node.set_attribute("destination_type", "f32")
        elif kind == "Parameter" and element_type(node.output(0)) in HALF:
            node.set_element_type(ov.Type.f32)
    network.validate_nodes_and_infer_types()
    if not set(ends) & set(HALF) or len(network.inputs) > 1 or len(network.outputs) > 1:  # those are refused elsewhere
        return network
    prepared = ov.preprocess.PrePostProcessor(network)
    for end, kind in zip((prepared.input(), prepared.output()), ends):
        if kind in HALF:
            end.tensor().set_element_type(getattr(ov.Type, kind))
    return prepared.build()


def _widen_constant(constant: Any) -> None:
    """Behind the Convert to float32 that compression puts there, or in its place."""
    from openvino import opset13 as op

    wide = op.constant(constant.get_data(dtype=np.float32), np.float32)
    wide.set_friendly_name(constant.get_friendly_name())
    for reader in constant.output(0).get_target_inputs():
        node, entries = reader.get_node(), [reader]
        if node.get_type_name() == "Convert" and element_type(node.output(0)) == "f32":
            wide.set_friendly_name(node.get_friendly_name())
            entries = node.output(0).get_target_inputs()
        for entry in entries:
            entry.replace_source_output(wide.output(0))


def element_type(port: Any) -> str:
    """Of an input or output: "f32"."""
    return str(port.get_element_type().get_type_name())
