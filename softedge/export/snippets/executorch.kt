// Runs the model on a golden image with ExecuTorch on Android.
// Gradle: implementation("org.pytorch:executorch-android:latest.release")
// Put @MODEL@ and golden/ into a folder of the app (context.filesDir) and call check(folder).
// Before the model: @BEFORE@.

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

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
    val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
    val tensor = Tensor.fromBlobUnsigned(image, shape)
    return Module.load(model.path).forward(EValue.from(tensor))[0].toTensor().dataAsFloatArray
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
