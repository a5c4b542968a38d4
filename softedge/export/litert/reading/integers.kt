    // Integers in and out: a value is scale * (q - zero point), see contract.json.
    val integers = arrayOf(ByteArray(OUTPUTS))
    Interpreter(model).use { it.run(input, integers) }
    val values = FloatArray(OUTPUTS) { @SCALE@f * ((integers[0][it].toInt() and 255) - @ZERO@) }
@IF probabilities@
    val powers = FloatArray(OUTPUTS) { exp(values[it] - values.max()) }
    return FloatArray(OUTPUTS) { powers[it] / powers.sum() }
@FI@
@IF scores@
    return FloatArray(OUTPUTS) { 1 / (1 + exp(-values[it])) }
@FI@
@IF features@
    return values
@FI@
