// Runs the model on a golden image with onnxruntime on iOS or macOS.
// Package: https://github.com/microsoft/onnxruntime-swift-package-manager (product "onnxruntime")
// Before the model: @BEFORE@.

import Foundation
import OnnxRuntimeBindings

let size = @SIZE@
let outputs = @OUTPUTS@

/// The numbers of a NumPy file: a header of known length, then the values in C order, little-endian.
func readNpy(_ url: URL) throws -> Data {
    let bytes = try Data(contentsOf: url)
    return Data(bytes.dropFirst(10 + Int(bytes[8]) + 256 * Int(bytes[9])))
}

/// uint8 RGB, size x size x 3 -> probabilities (or features).
func run(model: URL, image: Data) throws -> [Float] {
    let environment = try ORTEnv(loggingLevel: .error)
    let session = try ORTSession(env: environment, modelPath: model.path, sessionOptions: nil)
    let shape = [1, size, size, 3].map { NSNumber(value: $0) }
    let tensor = try ORTValue(tensorData: NSMutableData(data: image), elementType: .uInt8, shape: shape)
    let results = try session.run(withInputs: ["image": tensor], outputNames: ["@OUTPUT@"], runOptions: nil)
    let data = try results["@OUTPUT@"]!.tensorData() as Data
    return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
}

let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
let image = try readNpy(folder.appendingPathComponent("golden/images.npy")).prefix(size * size * 3)
let golden = try readNpy(folder.appendingPathComponent("golden/expected.npy"))
let expected = golden.withUnsafeBytes { Array($0.bindMemory(to: Float.self).prefix(outputs)) }

let found = try run(model: folder.appendingPathComponent("@MODEL@"), image: Data(image))

let best = found.indices.max { found[$0] < found[$1] }!
let difference = zip(found, expected).map { abs($0 - $1) }.max()!
let scale = "@OUTPUT@" == "probabilities" ? 1 : expected.map { abs($0) }.max()!
print("best \(best) (\(found[best])), largest difference to the expected output \(difference)")
exit(difference <= @TOLERANCE@ * scale ? 0 : 1)
