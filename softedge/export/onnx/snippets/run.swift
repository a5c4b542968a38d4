// Runs the model on photos, and on a golden image to check itself, with onnxruntime on iOS or macOS.
// Package: https://github.com/microsoft/onnxruntime-swift-package-manager (product "onnxruntime")
// In an app call checkGolden with the folder that holds @MODEL@, golden/ and snippets/labels.txt; as main.swift of a
// command line tool this runs with the export folder as argument.
// A photo: predict(..., image: try prepare(photo: url)); on the command line after the folder: ./run .. PHOTO ...

import Foundation
import OnnxRuntimeBindings

@BEGIN@

/// uint8 RGB, size x size x 3 -> @OUTPUT@. An app makes the session once and keeps it.
func predict(model: URL, image: [UInt8]) throws -> [Float] {
    let environment = try ORTEnv(loggingLevel: .error)
    let session = try ORTSession(env: environment, modelPath: model.path, sessionOptions: nil)
    let shape = [1, size, size, 3].map { NSNumber(value: $0) }
    let tensor = try ORTValue(tensorData: NSMutableData(data: Data(image)), elementType: .uInt8, shape: shape)
    let results = try session.run(withInputs: ["image": tensor], outputNames: ["@TENSOR@"], runOptions: nil)
    guard let output = results["@TENSOR@"] else { throw Unusable("\(model.path) has no output @TENSOR@") }
    let data = try output.tensorData() as Data
@READ@
}

@PHOTO@

@NAME@

/// True when the golden image gives the output that it gave on the machine that exported the model.
func checkGolden(_ folder: URL) throws -> Bool {
    let image = try readNpy(folder.appendingPathComponent("golden/images.npy"), size * size * 3)  // the first of several
    let golden = try readNpy(folder.appendingPathComponent("golden/expected.npy"), outputs * MemoryLayout<Float>.size)
    let expected = golden.withUnsafeBytes { bytes in
        (0..<outputs).map { bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Float>.size, as: Float.self) }
    }
    let labels = try readLabels(folder)

    let found = try predict(model: folder.appendingPathComponent("@MODEL@"), image: image)

    let differences = zip(found, expected).map { abs($0 - $1) }
    let allowed = @TOLERANCE@ * (labels.isEmpty ? expected.map { abs($0) }.max()! : 1)
    print("\(name(found, labels)), largest difference to the expected output \(differences.max()!) (allowed \(allowed))")
    return differences.allSatisfy { $0 <= allowed }  // max() may pass over a NaN
}

do {
    let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
    #if canImport(ImageIO)
    for path in CommandLine.arguments.dropFirst(2) {
        let image = try prepare(photo: URL(fileURLWithPath: path))
        let found = try predict(model: folder.appendingPathComponent("@MODEL@"), image: image)
        print("\(path): \(name(found, try readLabels(folder)))")
    }
    if CommandLine.arguments.count > 2 { exit(0) }
    #endif
    exit(try checkGolden(folder) ? 0 : 1)
} catch {
    FileHandle.standardError.write(Data("\(error.localizedDescription)\n".utf8))
    exit(2)
}
