// A double of the part of Core Graphics that the snippet uses. Drawing lays pixels on those that are there, as Pillow does.
import Foundation

public typealias CFString = NSString
public enum CGColorSpaceModel: Int32 { case unknown = -1, monochrome, rgb, cmyk, lab, deviceN, indexed, pattern, XYZ }
public enum CGImageAlphaInfo: UInt32 {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly
}

public final class CGColorSpace {
    nonisolated(unsafe) public static let sRGB: CFString = "kCGColorSpaceSRGB"
    public let model: CGColorSpaceModel
    public init(_ model: CGColorSpaceModel) { self.model = model }
    public init?(name: CFString) { model = .rgb }
}

public final class CGImage {
    public let width, height: Int
    public let colorSpace: CGColorSpace?
    let rgba: [UInt8]

    public init(_ width: Int, _ height: Int, _ rgba: [UInt8]) {
        (self.width, self.height, self.rgba, colorSpace) = (width, height, rgba, CGColorSpace(.rgb))
    }
}

public final class CGContext {
    let data: UnsafeMutablePointer<UInt8>
    let row: Int

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        guard let data, bitsPerComponent == 8, bytesPerRow >= 4 * width, space.model == .rgb,
            bitmapInfo == CGImageAlphaInfo.noneSkipLast.rawValue
        else { return nil }
        (self.data, row) = (data.assumingMemoryBound(to: UInt8.self), bytesPerRow)
    }

    public func draw(_ image: CGImage, in rect: CGRect) {
        precondition(rect == CGRect(x: 0, y: 0, width: image.width, height: image.height))
        for y in 0..<image.height {
            for x in 0..<image.width {
                let from = 4 * (y * image.width + x), to = y * row + 4 * x, alpha = Int(image.rgba[from + 3])
                for c in 0..<3 {
                    let sum = (Int(image.rgba[from + c]) * alpha + Int(data[to + c]) * (255 - alpha)) * 128 + (128 << 7)
                    data[to + c] = UInt8(((sum >> 8) + sum) >> 15)
                }
            }
        }
    }
}
