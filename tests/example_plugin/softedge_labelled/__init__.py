"""An ONNX file with its labels beside it, and a device of its own."""
