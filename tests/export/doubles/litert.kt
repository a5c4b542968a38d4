// A double of the part of LiteRT's Android API that the snippet uses. Its "model" is a file of the float32 answers, then
// the image they are for.
package org.tensorflow.lite

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class Interpreter(modelFile: File) : AutoCloseable {
    private val model = modelFile.readBytes()

    fun run(input: Any, output: Any) {
        val buffer = input as ByteBuffer
        require(buffer.isDirect && buffer.order() == ByteOrder.nativeOrder())
        val image = ByteArray(buffer.remaining()).also { buffer.get(it) }
        val split = model.size - image.size
        check(image.contentEquals(model.copyOfRange(split, model.size))) { "not the golden image" }
        val answer = ByteBuffer.wrap(model, 0, split).order(ByteOrder.LITTLE_ENDIAN)
        when (val row = (output as Array<*>)[0]) {
            is FloatArray -> answer.asFloatBuffer().get(row)
            is ByteArray -> answer.get(row)
            else -> error("neither floats nor bytes")
        }
    }

    override fun close() = Unit
}
