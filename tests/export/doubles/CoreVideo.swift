// A double of the part of Core Video that the snippet uses. Rows are padded, as the real ones may be.
import Foundation

public typealias CVReturn = Int32
public typealias OSType = UInt32
public typealias CFAllocator = NSObject
public typealias CFDictionary = NSDictionary

public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
}

public final class CVPixelBuffer {
    public let width, height, row: Int
    public let base: UnsafeMutableRawPointer
    public var locked = false

    init(_ width: Int, _ height: Int) {
        (self.width, self.height, row) = (width, height, 4 * width + 64)
        base = .allocate(byteCount: row * height, alignment: 64)
    }

    deinit { base.deallocate() }
}

public func CVPixelBufferCreate(
    _ allocator: CFAllocator?, _ width: Int, _ height: Int, _ pixelFormatType: OSType,
    _ pixelBufferAttributes: CFDictionary?, _ pixelBufferOut: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn {
    pixelBufferOut.pointee = CVPixelBuffer(width, height)
    return 0
}

@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn {
    buffer.locked = true
    return 0
}

@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> CVReturn {
    buffer.locked = false
    return 0
}

public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { buffer.row }

public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
    buffer.locked ? buffer.base : nil
}
