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

@BEGIN@

@PHOTO@

/** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. An app loads the module once and keeps it. */
fun predict(model: File, image: ByteArray): FloatArray {
    val module = Module.load(model.path)
    try {
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        return module.forward(EValue.from(Tensor.fromBlobUnsigned(image, shape)))[0].toTensor().dataAsFloatArray
    } finally {
        module.destroy()
    }
}

@END@
