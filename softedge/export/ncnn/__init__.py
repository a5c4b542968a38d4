"""ncnn (.param and .bin) for Arm boards and phones, converted by pnnx."""
