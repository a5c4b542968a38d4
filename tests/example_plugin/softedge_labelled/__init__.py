"""An ONNX file with its labels beside it, a device and a pretraining method of its own."""
