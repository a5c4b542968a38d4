// Runs the model on photos, and on a golden image to check itself, with LiteRT on Android.
// Gradle: implementation("com.google.ai.edge.litert:litert:latest.release")
// Put @MODEL@, golden/ and snippets/labels.txt into a folder of the app (context.filesDir) and call
// checkGolden(folder).
// A photo: predict(model, prepare(argb, width, height, orientation(file.readBytes()))), see prepare.

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
@IF exponential@
import kotlin.math.exp
@FI@
import org.tensorflow.lite.Interpreter

@BEGIN@

@PHOTO@

/** uint8 RGB, SIZE x SIZE x 3 -> @OUTPUT@. An app makes the interpreter once and keeps it. */
fun predict(model: File, image: ByteArray): FloatArray {
    val input = ByteBuffer.allocateDirect(image.size).order(ByteOrder.nativeOrder()).put(image).apply { rewind() }
@READ@
}

@END@
