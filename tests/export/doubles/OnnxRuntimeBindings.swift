// A double of the part of onnxruntime's Swift API that the snippet uses, as Swift sees the Objective-C headers. Its
// "model" is a file of the float32 answers, then the image they are for.
import Foundation

public enum ORTLoggingLevel { case verbose, info, warning, error, fatal }
public enum ORTTensorElementDataType { case undefined, float, int8, uInt8, int32, uInt32, int64, uInt64, string }

struct Failure: LocalizedError {
    let errorDescription: String?
}

func contents(_ url: URL) throws -> Data {
    guard let data = try? Data(contentsOf: url) else { throw Failure(errorDescription: "no model at \(url.path)") }
    return data
}

open class ORTEnv: NSObject {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

open class ORTSessionOptions: NSObject {}
open class ORTRunOptions: NSObject {}

open class ORTValue: NSObject {
    let data: NSMutableData
    let own: UnsafeMutableRawBufferPointer?

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        guard shape.map(\.intValue).reduce(1, *) == tensorData.length else { throw Failure(errorDescription: "shape") }
        (data, own) = (tensorData, nil)
    }

    /// An output, whose memory is gone with it.
    init(_ answer: Data) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: answer.count, alignment: 16)
        answer.copyBytes(to: memory)
        own = memory
        data = NSMutableData(bytesNoCopy: memory.baseAddress!, length: memory.count, freeWhenDone: false)
    }

    deinit { own?.initializeMemory(as: UInt8.self, repeating: 255) }  // NaN; leaked, so that a late reader sees it

    public func tensorData() throws -> NSMutableData { data }
}

open class ORTSession: NSObject {
    let model: Data

    public init(env: ORTEnv, modelPath path: String, sessionOptions: ORTSessionOptions?) throws {
        model = try contents(URL(fileURLWithPath: path))
    }

    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] {
        guard let image = inputs["image"]?.data as Data?, model.suffix(image.count) == image else {
            throw Failure(errorDescription: "not the golden image")
        }
        let answer = Data(model.dropLast(image.count))
        return Dictionary(uniqueKeysWithValues: outputNames.map { ($0, ORTValue(answer)) })
    }
}
