// Runs the model on a golden image with LiteRT on Android.
// Gradle: implementation("com.google.ai.edge.litert:litert:latest.release")
// Put @MODEL@ and golden/ into a folder of the app (context.filesDir) and call check(folder).
// Before the model: @BEFORE@.

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.tensorflow.lite.Interpreter

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
    val input = ByteBuffer.allocateDirect(image.size).order(ByteOrder.nativeOrder()).put(image).apply { rewind() }
    val output = arrayOf(FloatArray(OUTPUTS))
    Interpreter(model).use { it.run(input, output) }
    return output[0]
}

/** True when the golden image gives the output that it gave on the machine that exported the model. */
fun check(folder: File): Boolean {
    val image = ByteArray(SIZE * SIZE * 3)
    readNpy(File(folder, "golden/images.npy")).get(image)
    val expected = FloatArray(OUTPUTS)
    readNpy(File(folder, "golden/expected.npy")).asFloatBuffer().get(expected)
    val found = run(File(folder, "@MODEL@"), image)
    val scale = if ("@OUTPUT@" == "probabilities") 1f else expected.maxOf { abs(it) }
    return found.indices.all { abs(found[it] - expected[it]) <= @TOLERANCE@f * scale }
}
