/** The weights of one output pixel, and where in the line that is resized they begin. */
private class Taps(val start: Int, val weights: IntArray)

/**
 * Pillow's antialiased resampling of a line of [from] pixels to [to], for the outputs [first] until [first] + SIZE:
 * weights in double precision, rounded to 22 bits (Pillow, src/libImaging/Resample.c).
 */
private fun taps(from: Int, to: Int, first: Int): List<Taps> {
    val scale = from.toDouble() / to
    val stretch = maxOf(scale, 1.0)
    val reach = (if (CUBIC) 2.0 else 1.0) * stretch
    return List(SIZE) { i ->
        val centre = (first + i + 0.5) * scale
        val start = maxOf(0, (centre - reach + 0.5).toInt())
        val end = minOf(from, (centre + reach + 0.5).toInt())
        val exact = DoubleArray(end - start) { k ->
            val x = abs((k + start - centre + 0.5) * (1 / stretch))
            when {
                !CUBIC -> maxOf(0.0, 1 - x)
                x < 1 -> (1.5 * x - 2.5) * x * x + 1
                x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
                else -> 0.0
            }
        }
        val sum = exact.sum()
        Taps(start, IntArray(exact.size) { k ->
            val rounded = exact[k] / sum * (1 shl 22)
            (if (rounded < 0) rounded - 0.5 else rounded + 0.5).toInt()
        })
    }
}

/** How a JPEG is to be turned: Exif's tag 0x0112, 1 where there is none. */
fun orientation(file: ByteArray): Int {
    fun number(at: Int, bytes: Int, little: Boolean): Int = (0 until bytes).filter { at + it < file.size }.sumOf {
        (file[at + it].toInt() and 255) shl 8 * (if (little) it else bytes - 1 - it)
    }
    if (number(0, 2, false) != 0xFFD8) return 1
    var at = 2
    while (at + 18 < file.size && number(at, 1, false) == 0xFF && number(at + 1, 1, false) != 0xDA) {
        if (number(at + 1, 1, false) == 0xFF) { // padding
            at += 1
            continue
        }
        if (number(at + 1, 1, false) == 0xE1 && String(file, at + 4, 6, Charsets.ISO_8859_1) == "Exif\u0000\u0000") {
            val tiff = at + 10
            val little = file[tiff] == 'I'.code.toByte()
            val table = tiff + number(tiff + 4, 4, little)
            if (table < tiff || table > file.size) return 1
            val entries = (0 until number(table, 2, little)).map { table + 2 + 12 * it }.filter { it + 12 <= file.size }
            return entries.firstOrNull { number(it, 2, little) == 0x0112 }?.let { number(it + 8, 2, little) } ?: 1
        }
        at += 2 + number(at + 2, 2, false)
    }
    return 1
}

/**
 * A photo as the model expects it: upright, on white, shorter side to RESIZE pixels, centre crop; uint8 RGB.
 *
 * argb: [width] x [height] pixels as they were decoded. turn: orientation(file.readBytes()).
 * Android: val bitmap = BitmapFactory.decodeFile(path) // null where it is not a photo
 *          val argb = IntArray(bitmap.width * bitmap.height)
 *          bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
 * JVM:     val photo = ImageIO.read(file) // null where it is not a photo
 *          val argb = photo.getRGB(0, 0, photo.width, photo.height, null, 0, photo.width)
 *          if (photo.colorModel.numComponents < 3) for (i in argb.indices) { // grey, which getRGB takes for linear light
 *              val grey = photo.raster.getSample(i % photo.width, i / photo.width, 0)
 *              argb[i] = (argb[i] ushr 24 shl 24) or grey * 0x10101
 *          }
 */
fun prepare(argb: IntArray, width: Int, height: Int, turn: Int): ByteArray {
    val turned = turn in 5..8
    val (w, h) = if (turned) height to width else width to height // upright

    fun pixel(x: Int, y: Int): Int {
        var (column, row) = if (turned) y to x else x to y
        if (turn == 2 || turn == 3 || turn == 7 || turn == 8) column = width - 1 - column
        if (turn == 3 || turn == 4 || turn == 6 || turn == 7) row = height - 1 - row
        return argb[row * width + column]
    }

    fun onWhite(pixel: Int, channel: Int): Int {
        val alpha = pixel ushr 24
        val sum = (((pixel ushr 16 - 8 * channel) and 255) * alpha + 255 * (255 - alpha)) * 128 + (128 shl 7)
        return ((sum shr 8) + sum) shr 15
    }

    val longest = 8 * minOf(w, h) // of a longer strip only the middle is resized
    val left = maxOf(0, (w - longest) / 2)
    val top = maxOf(0, (h - longest) / 2)
    val columns = minOf(w, longest)
    val rows = minOf(h, longest)
    val longer = (RESIZE.toLong() * maxOf(columns, rows) / minOf(columns, rows)).toInt()
    val (wide, high) = if (rows <= columns) longer to RESIZE else RESIZE to longer
    val across = taps(columns, wide, Math.rint((wide - SIZE) / 2.0).toInt()) // halves to even
    val down = taps(rows, high, Math.rint((high - SIZE) / 2.0).toInt())
    val from = down.first().start
    val until = down.last().start + down.last().weights.size
    val lines = IntArray((until - from) * SIZE * 3)
    for (y in from until until) for (x in 0 until SIZE) {
        val sums = IntArray(3) { 1 shl 21 }
        across[x].weights.forEachIndexed { k, weight ->
            val value = pixel(left + across[x].start + k, top + y)
            for (c in 0..2) sums[c] += onWhite(value, c) * weight
        }
        for (c in 0..2) lines[((y - from) * SIZE + x) * 3 + c] = (sums[c] shr 22).coerceIn(0, 255)
    }
    return ByteArray(SIZE * SIZE * 3) { at ->
        val (y, x) = at / (SIZE * 3) to at % (SIZE * 3)
        var sum = 1 shl 21
        down[y].weights.forEachIndexed { k, weight -> sum += lines[(down[y].start - from + k) * SIZE * 3 + x] * weight }
        (sum shr 22).coerceIn(0, 255).toByte()
    }
}
