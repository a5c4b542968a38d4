@IF integers@
/** What the output tensor's integers mean: a value is scale * (q - zero point), see contract.json. */
fun fromIntegers(integers: ByteArray): FloatArray {
    val values = FloatArray(OUTPUTS) { @SCALE@f * ((integers[it].toInt() and 255) - @ZERO@) }
@FI@
@IF softmax@
    val largest = values.max()
    val powers = FloatArray(OUTPUTS) { exp(values[it] - largest) }
    val sum = powers.sum()
    return FloatArray(OUTPUTS) { powers[it] / sum }
@FI@
@IF sigmoid@
    return FloatArray(OUTPUTS) { 1 / (1 + exp(-values[it])) }
@FI@
@IF identity@
    return values
@FI@
@IF integers@
}

@FI@
