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
