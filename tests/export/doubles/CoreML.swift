// A double of the part of Core ML that the snippet uses. Its "model" is a file of the float32 answers, then the image they
// are for; what it gives, and the labels of a classifier come from the environment, for a real model holds them.
import CoreVideo
import Foundation

public enum MLFeatureType { case invalid, int64, double, string, image, multiArray, dictionary, sequence }

public final class MLMultiArray {
    let values: [NSNumber]
    init(_ values: [NSNumber]) { self.values = values }
    public var count: Int { values.count }
    public subscript(_ index: Int) -> NSNumber { values[index] }
}

public final class MLFeatureValue {
    public let type: MLFeatureType
    public let dictionaryValue: [AnyHashable: NSNumber]
    public let multiArrayValue: MLMultiArray?
    let buffer: CVPixelBuffer?

    public init(pixelBuffer: CVPixelBuffer) {
        (type, dictionaryValue, multiArrayValue, buffer) = (.image, [:], nil, pixelBuffer)
    }

    init(string: String) { (type, dictionaryValue, multiArrayValue, buffer) = (.string, [:], nil, nil) }

    init(_ probabilities: [AnyHashable: NSNumber]) {
        (type, dictionaryValue, multiArrayValue, buffer) = (.dictionary, probabilities, nil, nil)
    }

    init(_ features: [NSNumber]) {
        (type, dictionaryValue, multiArrayValue, buffer) = (.multiArray, [:], MLMultiArray(features), nil)
    }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    let values: [String: MLFeatureValue]
    public init(dictionary: [String: Any]) throws { values = dictionary.compactMapValues { $0 as? MLFeatureValue } }
    public var featureNames: Set<String> { Set(values.keys) }
    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

struct Failure: LocalizedError {
    let errorDescription: String?
}

func contents(_ url: URL) throws -> Data {
    guard let data = try? Data(contentsOf: url) else { throw Failure(errorDescription: "no model at \(url.path)") }
    return data
}

public final class MLModel {
    let model: Data

    public class func compileModel(at url: URL) async throws -> URL { url }

    @available(*, deprecated, message: "Use the asynchronous interface")
    public class func compileModel(at modelURL: URL) throws -> URL { modelURL }

    public init(contentsOf url: URL) throws { model = try contents(url) }

    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        guard let buffer = input.featureValue(for: "image")?.buffer, !buffer.locked else { throw Failure(errorDescription: "input") }
        var image = Data()
        for y in 0..<buffer.height {
            for x in 0..<buffer.width {
                let pixel = buffer.base + y * buffer.row + 4 * x
                for channel in [2, 1, 0] { image.append(pixel.load(fromByteOffset: channel, as: UInt8.self)) }
            }
        }
        guard model.suffix(image.count) == image else { throw Failure(errorDescription: "not the golden image") }
        let answer = Data(model.dropLast(image.count)).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
        let numbers = answer.map { NSNumber(value: $0) }
        let environment = ProcessInfo.processInfo.environment
        if let output = environment["OUTPUT"], output != "probabilities" {
            return try MLDictionaryFeatureProvider(dictionary: [output: MLFeatureValue(numbers)])
        }
        let names = environment["LABELS"]!.split(separator: ",").map(String.init)
        let probabilities = Dictionary(uniqueKeysWithValues: zip(names.map { AnyHashable($0) }, numbers))
        return try MLDictionaryFeatureProvider(
            dictionary: ["label": MLFeatureValue(string: names[0]), "probabilities": MLFeatureValue(probabilities)])
    }
}
