// A double of the part of ExecuTorch's Android API that the snippet uses. Its "model" is a file of the float32 answers,
// then the image they are for.
package org.pytorch.executorch

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class Tensor internal constructor(internal val bytes: ByteArray) {
    val dataAsFloatArray: FloatArray
        get() = FloatArray(bytes.size / 4).also {
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
        }

    companion object {
        fun fromBlobUnsigned(data: ByteArray, shape: LongArray): Tensor {
            require(data.size.toLong() == shape.reduce(Long::times))
            return Tensor(data)
        }
    }
}

class EValue private constructor(private val tensor: Tensor) {
    fun toTensor() = tensor

    companion object {
        fun from(tensor: Tensor) = EValue(tensor)
    }
}

class Module private constructor(private val model: ByteArray) {
    fun forward(vararg inputs: EValue): Array<EValue> {
        val image = inputs[0].toTensor().bytes
        val split = model.size - image.size
        check(image.contentEquals(model.copyOfRange(split, model.size))) { "not the golden image" }
        return arrayOf(EValue.from(Tensor(model.copyOf(split))))
    }

    fun destroy() = Unit

    companion object {
        fun load(modelPath: String) = Module(File(modelPath).readBytes())
    }
}
