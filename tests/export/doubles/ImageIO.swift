// A double of the part of Image I/O that the snippet uses. A "photo" is a file of width, height and Exif's orientation, as
// 4 bytes each, little-endian, then the pixels, RGBA.
import CoreGraphics
import Foundation

public typealias CFURL = NSURL
public typealias CFDictionary = NSDictionary

nonisolated(unsafe) public let kCGImagePropertyOrientation: CFString = "Orientation"

public final class CGImageSource {
    let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    func number(_ at: Int) -> Int { (0..<4).reduce(0) { $0 + Int(bytes[4 * at + $1]) << (8 * $1) } }
}

public func CGImageSourceCreateWithURL(_ url: CFURL, _ options: CFDictionary?) -> CGImageSource? {
    (try? Data(contentsOf: url as URL)).map { CGImageSource([UInt8]($0)) }
}

public func CGImageSourceCreateImageAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? {
    guard source.bytes.count > 12 else { return nil }
    return CGImage(source.number(0), source.number(1), Array(source.bytes.dropFirst(12)))
}

public func CGImageSourceCopyPropertiesAtIndex(
    _ source: CGImageSource, _ index: Int, _ options: CFDictionary?
) -> CFDictionary? {
    source.number(2) == 0 ? nil : [kCGImagePropertyOrientation: NSNumber(value: source.number(2))]
}
