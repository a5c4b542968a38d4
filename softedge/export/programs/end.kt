/** The name of an output: its line in labels.txt, or its number where a model gives features and has no labels. */
fun label(folder: File, output: Int): String {
    val labels = File(folder, "snippets/labels.txt")
    return if (labels.exists()) labels.readLines()[output] else output.toString()
}

/** What is likeliest; of scores every label that has 0.5 or more; the largest feature of a model without labels. */
fun answer(folder: File, found: FloatArray): String {
    val best = found.indices.maxByOrNull { found[it] }!!
    val present = if ("@OUTPUT@" == "scores") found.indices.filter { found[it] >= 0.5f } else listOf(best)
    if (present.isEmpty()) return "no label, the highest: ${label(folder, best)} ${found[best]}"
    return present.joinToString { "${label(folder, it)} ${found[it]}" }
}

/** True when the golden image gives the output that it gave on the machine that exported the model. */
fun checkGolden(folder: File): Boolean {
    val image = ByteArray(SIZE * SIZE * 3)
    readNpy(File(folder, "golden/images.npy")).get(image) // the first of several
    val expected = FloatArray(OUTPUTS)
    readNpy(File(folder, "golden/expected.npy")).asFloatBuffer().get(expected)

    val found = predict(File(folder, "@MODEL@"), image)

    val difference = expected.indices.maxOf { abs(found[it] - expected[it]) }
    val allowed = @TOLERANCE@f * if ("@OUTPUT@" == "features") expected.maxOf { abs(it) } else 1f
    println("${answer(folder, found)}, largest difference to the expected output $difference (allowed $allowed)")
    return difference <= allowed // false for NaN, too
}
