// Runs the model on photos, and on a golden image to check itself, with ExecuTorch on Android.
// Gradle: implementation("org.pytorch:executorch-android:latest.release")
// Put @MODEL@, golden/ and snippets/labels.txt into a folder of the app (context.filesDir) and call
// checkGolden(folder).
// A photo: predict(model, prepare(argb, width, height, orientation(file.readBytes()))), see prepare.

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

const val SIZE = @SIZE@
const val RESIZE = @RESIZE@ // pixels of the shorter side, before the crop
const val CUBIC = @CUBIC@ // else bilinear
const val OUTPUTS = @OUTPUTS@

/** The values of a NumPy file: a header of known length, then the values in C order, little-endian. */
fun readNpy(file: File): ByteBuffer {
    val bytes = file.readBytes()
    val header = 10 + (bytes[8].toInt() and 255) + 256 * (bytes[9].toInt() and 255)
    return ByteBuffer.wrap(bytes, header, bytes.size - header).slice().order(ByteOrder.LITTLE_ENDIAN)
}

@PHOTO@

/** uint8 RGB, SIZE x SIZE x 3 -> probabilities (or features). An app loads the module once and keeps it. */
fun predict(model: File, image: ByteArray): FloatArray {
    val module = Module.load(model.path)
    try {
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        return module.forward(EValue.from(Tensor.fromBlobUnsigned(image, shape)))[0].toTensor().dataAsFloatArray
    } finally {
        module.destroy()
    }
}

/** The name of an output: its line in labels.txt, or its number where a model gives features and has no labels. */
fun label(folder: File, output: Int): String {
    val labels = File(folder, "snippets/labels.txt")
    return if (labels.exists()) labels.readLines()[output] else output.toString()
}

/** True when the golden image gives the output that it gave on the machine that exported the model. */
fun checkGolden(folder: File): Boolean {
    val image = ByteArray(SIZE * SIZE * 3)
    readNpy(File(folder, "golden/images.npy")).get(image) // the first of several
    val expected = FloatArray(OUTPUTS)
    readNpy(File(folder, "golden/expected.npy")).asFloatBuffer().get(expected)

    val found = predict(File(folder, "@MODEL@"), image)

    val difference = expected.indices.maxOf { abs(found[it] - expected[it]) }
    val allowed = @TOLERANCE@f * if ("@OUTPUT@" == "probabilities") 1f else expected.maxOf { abs(it) }
    val best = found.indices.maxByOrNull { found[it] }!!
    println("${label(folder, best)} ${found[best]}, largest difference to the expected output $difference (allowed $allowed)")
    return difference <= allowed // false for NaN, too
}
