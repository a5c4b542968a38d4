    val output = arrayOf(FloatArray(OUTPUTS))
    Interpreter(model).use { it.run(input, output) }
    return output[0]
