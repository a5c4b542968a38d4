// Runs the model on photos, and on a golden image to check itself, with Core ML on macOS 13 or later.
//   swiftc run.swift -o run && ./run ..
// In an app Xcode compiles @MODEL@: load it with MLModel(contentsOf: Bundle.main.url(forResource: "model",
// withExtension: "mlmodelc")!), once, and call predict.
// A photo: predict(..., image: try prepare(photo: url)); on the command line after the folder: ./run .. PHOTO ...

import CoreML
import CoreVideo
import Foundation

@BEGIN@

/// uint8 RGB -> the BGRA pixel buffer that Core ML's image inputs take.
func pixelBuffer(_ rgb: [UInt8]) throws -> CVPixelBuffer {
    var created: CVPixelBuffer?
    let status = CVPixelBufferCreate(nil, size, size, kCVPixelFormatType_32BGRA, nil, &created)
    guard let buffer = created else { throw Unusable("no pixel buffer (error \(status))") }
    CVPixelBufferLockBaseAddress(buffer, [])
    defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
    let row = CVPixelBufferGetBytesPerRow(buffer)
    let base = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
    for y in 0..<size {
        for x in 0..<size {
            let from = 3 * (y * size + x), to = y * row + 4 * x
            (base[to], base[to + 1], base[to + 2], base[to + 3]) = (rgb[from + 2], rgb[from + 1], rgb[from], 255)
        }
    }
    return buffer
}

/// uint8 RGB, size x size x 3 -> probabilities in the order of the labels (or features).
func predict(model: MLModel, image: [UInt8], labels: [String]) throws -> [Float] {
    let value = MLFeatureValue(pixelBuffer: try pixelBuffer(image))
    let result = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": value]))
    for name in result.featureNames {
        guard let value = result.featureValue(for: name) else { continue }
        if value.type == .dictionary {
            return labels.map { value.dictionaryValue[$0]?.floatValue ?? .nan }
        }
        if let array = value.multiArrayValue, array.count == outputs {
            return (0..<outputs).map { array[$0].floatValue }
        }
    }
    throw Unusable("the model gave neither probabilities nor features")
}

@PHOTO@

@NAME@

/// True when the golden image gives the output that it gave on the machine that exported the model.
func checkGolden(_ folder: URL) async throws -> Bool {
    let image = try readNpy(folder.appendingPathComponent("golden/images.npy"), size * size * 3)  // the first of several
    let golden = try readNpy(folder.appendingPathComponent("golden/expected.npy"), outputs * MemoryLayout<Float>.size)
    let expected = golden.withUnsafeBytes { bytes in
        (0..<outputs).map { bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Float>.size, as: Float.self) }
    }
    let labels = try readLabels(folder)

    let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent("@MODEL@"))
    let found = try predict(model: try MLModel(contentsOf: compiled), image: image, labels: labels)

    let differences = zip(found, expected).map { abs($0 - $1) }
    let allowed = @TOLERANCE@ * (labels.isEmpty ? expected.map { abs($0) }.max()! : 1)
    print("\(name(found, labels)), largest difference to the expected output \(differences.max()!) (allowed \(allowed))")
    return differences.allSatisfy { $0 <= allowed }  // max() may pass over a NaN
}

do {
    let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
    #if canImport(ImageIO)
    if CommandLine.arguments.count > 2 {
        let labels = try readLabels(folder)
        let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent("@MODEL@"))
        let model = try MLModel(contentsOf: compiled)
        for path in CommandLine.arguments.dropFirst(2) {
            let image = try prepare(photo: URL(fileURLWithPath: path))
            let found = try predict(model: model, image: image, labels: labels)
            print("\(path): \(name(found, labels))")
        }
        exit(0)
    }
    #endif
    exit(try await checkGolden(folder) ? 0 : 1)
} catch {
    FileHandle.standardError.write(Data("\(error.localizedDescription)\n".utf8))
    exit(2)
}
