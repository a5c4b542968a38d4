"""ONNX: graph, int8 candidates, runtime, counting and snippets."""
