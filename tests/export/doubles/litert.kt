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
        val rows = output as Array<*>
        ByteBuffer.wrap(model, 0, split).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(rows[0] as FloatArray)
    }

    override fun close() = Unit
}
