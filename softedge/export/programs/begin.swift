#if canImport(ImageIO)
import CoreGraphics
import ImageIO
#endif

let size = @SIZE@
let outputs = @OUTPUTS@
let resize = @RESIZE@  // pixels of the shorter side, before the crop
let cubic = @CUBIC@  // else bilinear

struct Unusable: LocalizedError {
    let errorDescription: String?
    init(_ why: String) { errorDescription = why }
}

func contents(_ url: URL) throws -> Data {
    guard let data = try? Data(contentsOf: url) else { throw Unusable("\(url.path) cannot be read") }
    return data
}

/// The first `wanted` bytes of a NumPy file's values: after a header of known length, in C order, little-endian.
func readNpy(_ url: URL, _ wanted: Int) throws -> [UInt8] {
    let bytes = [UInt8](try contents(url))
    let header = bytes.count < 10 ? 10 : 10 + Int(bytes[8]) + 256 * Int(bytes[9])
    guard bytes.count >= header + wanted else { throw Unusable("\(url.path) is not the file of this model") }
    return Array(bytes[header..<header + wanted])
}

@IF features@
/// None: the model gives features.
func readLabels(_ folder: URL) throws -> [String] { [] }
@FI@
@IF probabilities scores@
/// The names of the outputs, one on each line.
func readLabels(_ folder: URL) throws -> [String] {
    let text = String(decoding: try contents(folder.appendingPathComponent("snippets/labels.txt")), as: UTF8.self)
    return text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
}
@FI@
