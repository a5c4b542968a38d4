// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with Core ML on iOS 16, macOS 13 or later; w8a8
// needs iOS 17 or macOS 14. On a Mac: swiftc run.swift -o run && ./run ..
// App: leave out the end of this file, from "Command line" on. Put @MODEL@, golden/ and snippets/labels.txt,
// with these paths, into a folder "model", drag it into Xcode and choose folder references. Then, off the main actor
// (Task.detached { ... }):
//     let folder = Bundle.main.url(forResource: "model", withExtension: nil)!
//     let classifier = try await Classifier(compiled: compile(folder), labels: readLabels(folder))  // once
//     try checkGolden(folder, classifier)  // in a test on the device: true where the answer is as it was at export
//     let found = try classifier.predict(prepare(photo: url))
//     name(found, try readLabels(folder))  // in words
// A model that is added to the target by itself, Xcode compiles: Bundle.main.url(forResource: "model", withExtension:
// "mlmodelc")! then is the compiled one.

import CoreML
import CoreVideo
import Foundation

@BEGIN@

@PHOTO@

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

/// The compiled model of the folder that holds @MODEL@: a folder of the system's for temporary files.
func compile(_ folder: URL) async throws -> URL {
    try await MLModel.compileModel(at: folder.appendingPathComponent("@MODEL@"))
}

/// The model, loaded once.
final class Classifier {
    private let model: MLModel
    private let labels: [String]

    init(compiled: URL, labels: [String]) throws {
        model = try MLModel(contentsOf: compiled)
        self.labels = labels
    }

    /// uint8 RGB, size x size x 3 -> @OUTPUT@ in the order of the labels.
    func predict(_ image: [UInt8]) throws -> [Float] {
        let value = MLFeatureValue(pixelBuffer: try pixelBuffer(image))
        let result = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": value]))
        for name in result.featureNames {
            guard let value = result.featureValue(for: name) else { continue }
@IF probabilities@
            if value.type == .dictionary {
                return labels.map { value.dictionaryValue[$0]?.floatValue ?? .nan }
            }
@FI@
@IF scores features@
            if let array = value.multiArrayValue, array.count == outputs {
                return (0..<outputs).map { array[$0].floatValue }
            }
@FI@
        }
        throw Unusable("the model gave no @OUTPUT@")
    }
}

@END@

// Command line: ./run FOLDER checks the model of an export folder, ./run FOLDER PHOTO ... reads photos.
do {
    let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
    let compiled = try await compile(folder)
    exit(try run(folder, try Classifier(compiled: compiled, labels: readLabels(folder))) ? 0 : 1)
} catch {
    complain("\(error.localizedDescription)")
    exit(2)
}
