"""LiteRT (.tflite), converted and run in an environment of its own."""
