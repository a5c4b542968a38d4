    // Integers in and out: a value is scale * (q - zero point), see contract.json.
    val integers = arrayOf(ByteArray(OUTPUTS))
    Interpreter(model).use { it.run(input, integers) }
    val values = FloatArray(OUTPUTS) { @SCALE@f * ((integers[0][it].toInt() and 255) - @ZERO@) }
    if ("@OUTPUT@" == "scores") return FloatArray(OUTPUTS) { 1 / (1 + exp(-values[it])) }
    if ("@OUTPUT@" != "probabilities") return values
    val powers = FloatArray(OUTPUTS) { exp(values[it] - values.max()) }
    return FloatArray(OUTPUTS) { powers[it] / powers.sum() }
