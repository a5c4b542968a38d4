// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with LiteRT on Android.
// Gradle: implementation("com.google.ai.edge.litert:litert:latest.release")
@IF runtime@
// Exported with @RUNTIME@: before you release an app, pin that version or a newer one.
@FI@
@ANDROID@

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
@IF softmax sigmoid@
import kotlin.math.exp
@FI@
import org.tensorflow.lite.Interpreter

@BEGIN@

@PHOTO@

@INTEGERS@
/** The model, loaded once. One thread at a time may call predict. */
class Classifier(model: File) : AutoCloseable {
    private val interpreter = Interpreter(model)

    /** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. */
    fun predict(image: ByteArray): FloatArray {
        val input = ByteBuffer.allocateDirect(image.size).order(ByteOrder.nativeOrder()).put(image).apply { rewind() }
@IF float@
        return arrayOf(FloatArray(OUTPUTS)).also { interpreter.run(input, it) }[0]
@FI@
@IF integers@
        return fromIntegers(arrayOf(ByteArray(OUTPUTS)).also { interpreter.run(input, it) }[0])
@FI@
    }

    override fun close() = interpreter.close()
}

@END@
