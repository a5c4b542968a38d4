/** The name of an output: its line in labels.txt, or its number where a model gives features and has no labels. */
fun label(folder: File, output: Int): String {
    val labels = File(folder, "snippets/labels.txt")
    return if (labels.exists()) labels.readLines()[output] else output.toString()
}

@IF probabilities@
/** The likeliest label, and how likely it is. */
@FI@
@IF scores@
/** Every label that has 0.5 or more, else the highest. */
@FI@
@IF features@
/** The largest feature: the model has no labels. */
@FI@
fun answer(folder: File, found: FloatArray): String {
    val best = found.indices.maxByOrNull { found[it] }!!
@IF scores@
    val present = found.indices.filter { found[it] >= 0.5f }
    if (present.isEmpty()) return "no label, the highest: ${label(folder, best)} ${found[best]}"
    return present.joinToString { "${label(folder, it)} ${found[it]}" }
@FI@
@IF probabilities features@
    return "${label(folder, best)} ${found[best]}"
@FI@
}

/** True when the golden image gives the output that it gave on the machine that exported the model. */
fun checkGolden(folder: File): Boolean {
    val image = ByteArray(SIZE * SIZE * 3)
    readNpy(File(folder, "golden/images.npy")).get(image) // the first of several
    val expected = FloatArray(OUTPUTS)
    readNpy(File(folder, "golden/expected.npy")).asFloatBuffer().get(expected)

    val found = Classifier(File(folder, "@MODEL@")).use { it.predict(image) }

    val difference = expected.indices.maxOf { abs(found[it] - expected[it]) }
@IF features@
    val allowed = @TOLERANCE@f * expected.maxOf { abs(it) }
@FI@
@IF probabilities scores@
    val allowed = @TOLERANCE@f
@FI@
    println("${answer(folder, found)}, largest difference to the expected output $difference (allowed $allowed)")
    return difference <= allowed // false for NaN, too
}
