// Runs the model on a golden image with onnxruntime on Android or the JVM.
// Gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:latest.release")  (JVM: onnxruntime)
// On Android put @MODEL@ and golden/ into the app's files; on the JVM run with the export folder as argument.
// Before the model: @BEFORE@.

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.system.exitProcess

const val SIZE = @SIZE@
const val OUTPUTS = @OUTPUTS@

/** The numbers of a NumPy file: a header of known length, then the values in C order, little-endian. */
fun readNpy(file: File): ByteBuffer {
    val bytes = file.readBytes()
    val header = 10 + (bytes[8].toInt() and 255) + 256 * (bytes[9].toInt() and 255)
    return ByteBuffer.wrap(bytes, header, bytes.size - header).slice().order(ByteOrder.LITTLE_ENDIAN)
}

/** uint8 RGB, SIZE x SIZE x 3 -> probabilities (or features). */
fun run(model: File, image: ByteArray): FloatArray {
    val environment = OrtEnvironment.getEnvironment()
    environment.createSession(model.path).use { session ->
        val direct = ByteBuffer.allocateDirect(image.size).put(image).apply { rewind() }
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        OnnxTensor.createTensor(environment, direct, shape, OnnxJavaType.UINT8).use { tensor ->
            session.run(mapOf("image" to tensor)).use { results ->
                @Suppress("UNCHECKED_CAST")
                return (results["@OUTPUT@"].get().value as Array<FloatArray>)[0]
            }
        }
    }
}

fun main(arguments: Array<String>) {
    val folder = File(arguments.firstOrNull() ?: "..")
    val image = ByteArray(SIZE * SIZE * 3)
    readNpy(File(folder, "golden/images.npy")).get(image)
    val expected = FloatArray(OUTPUTS)
    readNpy(File(folder, "golden/expected.npy")).asFloatBuffer().get(expected)

    val found = run(File(folder, "@MODEL@"), image)

    val best = found.indices.maxByOrNull { found[it] }!!
    val difference = found.indices.maxOf { abs(found[it] - expected[it]) }
    val scale = if ("@OUTPUT@" == "probabilities") 1f else expected.maxOf { abs(it) }
    println("best $best (${found[best]}), largest difference to the expected output $difference")
    exitProcess(if (difference <= @TOLERANCE@f * scale) 0 else 1)
}
