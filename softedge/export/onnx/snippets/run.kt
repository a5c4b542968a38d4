// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with onnxruntime on Android or the JVM.
// Gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:latest.release")  (JVM: onnxruntime)
@IF runtime@
// Exported with @RUNTIME@: before you release an app, pin that version or a newer one.
@FI@
@ANDROID@
// JVM: run it with the export folder as argument; it checks itself.

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
@IF softmax sigmoid@
import kotlin.math.exp
@FI@
import kotlin.system.exitProcess

@BEGIN@

@PHOTO@

@INTEGERS@
/** The model, loaded once. Any thread may call predict. */
class Classifier(model: File) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(model.path)

    /** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. */
    fun predict(image: ByteArray): FloatArray {
        val direct = ByteBuffer.allocateDirect(image.size).put(image).apply { rewind() }
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        OnnxTensor.createTensor(environment, direct, shape, OnnxJavaType.UINT8).use { tensor ->
            session.run(mapOf("image" to tensor)).use { results ->
                val output = results["@TENSOR@"].get() as OnnxTensor
@IF float@
                return FloatArray(OUTPUTS).also { output.floatBuffer.get(it) }
@FI@
@IF integers@
                return fromIntegers(ByteArray(OUTPUTS).also { output.byteBuffer.get(it) })
@FI@
            }
        }
    }

    override fun close() = session.close()
}

@END@

fun main(arguments: Array<String>) {
    exitProcess(if (checkGolden(File(arguments.firstOrNull() ?: ".."))) 0 else 1)
}
