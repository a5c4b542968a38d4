                val output = FloatArray(OUTPUTS)
                (results["@OUTPUT@"].get() as OnnxTensor).floatBuffer.get(output)
                return output
