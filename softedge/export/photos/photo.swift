/// Pillow's antialiased resampling of a line of `from` pixels to `to`, for the outputs first ..< first + size: where
/// each begins, and its weights, in double precision, rounded to 22 bits (Pillow, src/libImaging/Resample.c).
func taps(_ from: Int, _ to: Int, _ first: Int) -> [(start: Int, weights: [Int])] {
    let scale = Double(from) / Double(to)
    let stretch = max(scale, 1)
    let reach = (cubic ? 2 : 1) * stretch
    return (0..<size).map { i in
        let centre = (Double(first + i) + 0.5) * scale
        let start = max(0, Int(centre - reach + 0.5))
        let end = min(from, Int(centre + reach + 0.5))
        let exact = (start..<end).map { k -> Double in
            let x = abs((Double(k) - centre + 0.5) * (1 / stretch))
            if !cubic { return max(0, 1 - x) }
            if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
            return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
        }
        let sum = exact.reduce(0, +)
        return (start, exact.map { Int(($0 / sum * Double(1 << 22)).rounded(.toNearestOrAwayFromZero)) })
    }
}

/// A photo as the model expects it: upright, shorter side to `resize` pixels, centre crop; uint8 RGB.
/// rgba: width x height pixels, transparency already laid on white.  turn: Exif's orientation, 1 to 8.
func prepare(rgba: [UInt8], width: Int, height: Int, turn: Int) -> [UInt8] {
    let turned = (5...8).contains(turn)
    let (w, h) = turned ? (height, width) : (width, height)  // upright
    func place(_ x: Int, _ y: Int) -> Int {
        var (column, row) = turned ? (y, x) : (x, y)
        if [2, 3, 7, 8].contains(turn) { column = width - 1 - column }
        if [3, 4, 6, 7].contains(turn) { row = height - 1 - row }
        return 4 * (row * width + column)
    }
    let longest = 8 * min(w, h)  // of a longer strip only the middle is resized
    let left = max(0, (w - longest) / 2)
    let top = max(0, (h - longest) / 2)
    let columns = min(w, longest)
    let rows = min(h, longest)
    let longer = resize * max(columns, rows) / min(columns, rows)
    let (wide, high) = rows <= columns ? (longer, resize) : (resize, longer)
    func middle(_ side: Int) -> Int { Int((Double(side - size) / 2).rounded(.toNearestOrEven)) }
    let across = taps(columns, wide, middle(wide))
    let down = taps(rows, high, middle(high))
    let from = down[0].start
    let until = down[size - 1].start + down[size - 1].weights.count
    var lines = [Int](repeating: 0, count: (until - from) * size * 3)
    for y in from..<until {
        for x in 0..<size {
            var sums = [1 << 21, 1 << 21, 1 << 21]
            for (k, weight) in across[x].weights.enumerated() {
                let at = place(left + across[x].start + k, top + y)
                for c in 0..<3 { sums[c] += Int(rgba[at + c]) * weight }
            }
            for c in 0..<3 { lines[((y - from) * size + x) * 3 + c] = min(max(sums[c] >> 22, 0), 255) }
        }
    }
    var image = [UInt8](repeating: 0, count: size * size * 3)
    for y in 0..<size {
        for x in 0..<(size * 3) {
            var sum = 1 << 21
            for (k, weight) in down[y].weights.enumerated() {
                sum += lines[(down[y].start - from + k) * size * 3 + x] * weight
            }
            image[y * size * 3 + x] = UInt8(min(max(sum >> 22, 0), 255))
        }
    }
    return image
}

#if canImport(ImageIO)
/// Decodes a photo and makes it what the model expects.
func prepare(photo: URL) throws -> [UInt8] {
    guard let source = CGImageSourceCreateWithURL(photo as CFURL, nil),
        let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
    else { throw Unusable("\(photo.path) cannot be decoded") }
    let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
    let turn = properties?[kCGImagePropertyOrientation] as? Int ?? 1
    // The photo's own colours, unconverted: training read them so.
    let own = image.colorSpace.flatMap { $0.model == .rgb ? $0 : nil }
    let space = own ?? CGColorSpace(name: CGColorSpace.sRGB)!
    var rgba = [UInt8](repeating: 255, count: image.width * image.height * 4)  // white
    try rgba.withUnsafeMutableBytes { bytes in
        guard
            let context = CGContext(
                data: bytes.baseAddress, width: image.width, height: image.height, bitsPerComponent: 8,
                bytesPerRow: image.width * 4, space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { throw Unusable("\(photo.path) cannot be drawn") }
        context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
    }
    return prepare(rgba: rgba, width: image.width, height: image.height, turn: turn)
}
#endif
