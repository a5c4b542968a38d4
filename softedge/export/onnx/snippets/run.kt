// Runs the model on photos, and on a golden image to check itself, with onnxruntime on Android or the JVM.
// Gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:latest.release")  (JVM: onnxruntime)
// On Android put @MODEL@, golden/ and snippets/labels.txt into a folder of the app (context.filesDir) and call
// checkGolden(folder); on the JVM run with the export folder as argument.
// A photo: predict(model, prepare(argb, width, height, orientation(file.readBytes()))), see prepare.

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
@IF exponential@
import kotlin.math.exp
@FI@
import kotlin.system.exitProcess

@BEGIN@

@PHOTO@

/** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. An app makes the session once and keeps it. */
fun predict(model: File, image: ByteArray): FloatArray {
    val environment = OrtEnvironment.getEnvironment()
    environment.createSession(model.path).use { session ->
        val direct = ByteBuffer.allocateDirect(image.size).put(image).apply { rewind() }
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        OnnxTensor.createTensor(environment, direct, shape, OnnxJavaType.UINT8).use { tensor ->
            session.run(mapOf("image" to tensor)).use { results ->
@READ@
            }
        }
    }
}

@END@

fun main(arguments: Array<String>) {
    exitProcess(if (checkGolden(File(arguments.firstOrNull() ?: ".."))) 0 else 1)
}
