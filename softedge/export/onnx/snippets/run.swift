// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with onnxruntime on iOS 15, macOS 14 or later.
// Xcode: File > Add Package Dependencies, https://github.com/microsoft/onnxruntime-swift-package-manager, and of it the
// product "onnxruntime".
@IF runtime@
// Exported with @RUNTIME@: before you release an app, take that version or a newer one.
@FI@
// App: leave out the end of this file, from "Command line" on. Put @MODEL@, golden/ and snippets/labels.txt,
// with these paths, into a folder "model", drag it into Xcode and choose folder references. Then, off the main actor
// (Task.detached { ... }):
//     let folder = Bundle.main.url(forResource: "model", withExtension: nil)!
//     let classifier = try Classifier(folder)  // once
//     try checkGolden(folder, classifier)  // in a test on the device: true where the answer is as it was at export
//     let found = try classifier.predict(prepare(photo: url))
//     name(found, try readLabels(folder))  // in words

import Foundation
import OnnxRuntimeBindings

@BEGIN@

@PHOTO@

@INTEGERS@
/// The model, loaded once.
final class Classifier {
    private let session: ORTSession

    /// folder: holds @MODEL@.
    init(_ folder: URL) throws {
        let model = folder.appendingPathComponent("@MODEL@").path
        session = try ORTSession(env: try ORTEnv(loggingLevel: .error), modelPath: model, sessionOptions: nil)
    }

    /// uint8 RGB, size x size x 3 -> @OUTPUT@.
    func predict(_ image: [UInt8]) throws -> [Float] {
        let shape = [1, size, size, 3].map { NSNumber(value: $0) }
        let tensor = try ORTValue(tensorData: NSMutableData(data: Data(image)), elementType: .uInt8, shape: shape)
        let results = try session.run(withInputs: ["image": tensor], outputNames: ["@TENSOR@"], runOptions: nil)
        guard let output = results["@TENSOR@"] else { throw Unusable("the model has no output @TENSOR@") }
        // tensorData() is the output's own memory, which is gone with it: copied before Swift may free the output.
        let data = try withExtendedLifetime((results, output)) {
            let memory = try output.tensorData()
            return Data(bytes: memory.bytes, count: memory.length)
        }
@IF float@
        guard data.count == outputs * MemoryLayout<Float>.size else { throw Unusable("another number of outputs") }
        return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
@FI@
@IF integers@
        guard data.count == outputs else { throw Unusable("another number of outputs") }
        return fromIntegers(data)
@FI@
    }
}

@END@

// Command line: ./run FOLDER checks the model of an export folder, ./run FOLDER PHOTO ... reads photos.
do {
    let folder = URL(fileURLWithPath: CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : "..")
    exit(try run(folder, try Classifier(folder)) ? 0 : 1)
} catch {
    complain("\(error.localizedDescription)")
    exit(2)
}
