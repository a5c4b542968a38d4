// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with ExecuTorch on Android.
// Gradle: implementation("org.pytorch:executorch-android:latest.release")
@IF runtime@
// Exported with @RUNTIME@: before you release an app, pin that version or a newer one.
@FI@
@ANDROID@

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

@BEGIN@

@PHOTO@

/** The model, loaded once. One thread at a time may call predict. */
class Classifier(model: File) : AutoCloseable {
    private val module = Module.load(model.path)

    /** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. */
    fun predict(image: ByteArray): FloatArray {
        val shape = longArrayOf(1, SIZE.toLong(), SIZE.toLong(), 3)
        return module.forward(EValue.from(Tensor.fromBlobUnsigned(image, shape)))[0].toTensor().dataAsFloatArray
    }

    override fun close() = module.destroy()
}

@END@
