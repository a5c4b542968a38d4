                // Integers in and out: a value is scale * (q - zero point), see contract.json.
                val integers = ByteArray(OUTPUTS)
                (results["@TENSOR@"].get() as OnnxTensor).byteBuffer.get(integers)
                val values = FloatArray(OUTPUTS) { @SCALE@f * ((integers[it].toInt() and 255) - @ZERO@) }
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
