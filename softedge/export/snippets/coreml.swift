// Runs the model on a golden image with Core ML on macOS; on iOS use the same calls with the model in the app bundle.
//   swiftc run.swift -o run && ./run ..
// Before the model: @BEFORE@.

import CoreML
import CoreVideo
import Foundation

let size = @SIZE@
let outputs = @OUTPUTS@

/// The numbers of a NumPy file: a header of known length, then the values in C order, little-endian.
func readNpy(_ url: URL) throws -> [UInt8] {
    let bytes = try [UInt8](Data(contentsOf: url))
    return Array(bytes.dropFirst(10 + Int(bytes[8]) + 256 * Int(bytes[9])))
}

/// uint8 RGB -> the BGRA pixel buffer that Core ML's image inputs take.
func pixelBuffer(_ rgb: ArraySlice<UInt8>) -> CVPixelBuffer {
    var buffer: CVPixelBuffer?
    CVPixelBufferCreate(nil, size, size, kCVPixelFormatType_32BGRA, nil, &buffer)
    CVPixelBufferLockBaseAddress(buffer!, [])
    let row = CVPixelBufferGetBytesPerRow(buffer!)
    let base = CVPixelBufferGetBaseAddress(buffer!)!.assumingMemoryBound(to: UInt8.self)
    for y in 0..<size {
        for x in 0..<size {
            let from = rgb.startIndex + 3 * (y * size + x), to = y * row + 4 * x
            (base[to], base[to + 1], base[to + 2], base[to + 3]) = (rgb[from + 2], rgb[from + 1], rgb[from], 255)
        }
    }
    CVPixelBufferUnlockBaseAddress(buffer!, [])
    return buffer!
}

let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
let image = try readNpy(folder.appendingPathComponent("golden/images.npy")).prefix(size * size * 3)
let golden = try readNpy(folder.appendingPathComponent("golden/expected.npy"))
let expected = golden.withUnsafeBytes { Array($0.bindMemory(to: Float.self).prefix(outputs)) }
let contract = try JSONSerialization.jsonObject(
    with: Data(contentsOf: folder.appendingPathComponent("contract.json"))) as! [String: Any]
let labels = contract["labels"] as! [String]

let compiled = try MLModel.compileModel(at: folder.appendingPathComponent("@MODEL@"))
let model = try MLModel(contentsOf: compiled)
let input = try MLDictionaryFeatureProvider(dictionary: ["image": MLFeatureValue(pixelBuffer: pixelBuffer(image))])
let result = try model.prediction(from: input)

var found = [Float](repeating: 0, count: outputs)
for name in result.featureNames {
    let value = result.featureValue(for: name)!
    if value.type == .dictionary {
        for (key, probability) in value.dictionaryValue {
            found[labels.firstIndex(of: key as! String)!] = probability.floatValue
        }
    } else if let array = value.multiArrayValue {
        found = (0..<outputs).map { array[$0].floatValue }
    }
}

let best = found.indices.max { found[$0] < found[$1] }!
let difference = zip(found, expected).map { abs($0 - $1) }.max()!
let scale = labels.isEmpty ? expected.map { abs($0) }.max()! : 1
print("best \(labels.isEmpty ? String(best) : labels[best]) (\(found[best])), largest difference \(difference)")
exit(difference <= @TOLERANCE@ * scale ? 0 : 1)
