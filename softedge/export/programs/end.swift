@IF probabilities@
/// The likeliest label, and how likely it is.
@FI@
@IF scores@
/// Every label that has 0.5 or more, else the highest.
@FI@
@IF features@
/// The largest feature: the model has no labels.
@FI@
func name(_ found: [Float], _ labels: [String]) -> String {
    let best = found.indices.max { found[$0] < found[$1] }!
@IF probabilities@
    return "\(labels[best]) \(found[best])"
@FI@
@IF scores@
    let present = found.indices.filter { found[$0] >= 0.5 }
    if present.isEmpty { return "no label, the highest: \(labels[best]) \(found[best])" }
    return present.map { "\(labels[$0]) \(found[$0])" }.joined(separator: ", ")
@FI@
@IF features@
    return "\(best) \(found[best])"
@FI@
}

/// True when the golden image gives the output that it gave on the machine that exported the model.
func checkGolden(_ folder: URL, _ classifier: Classifier) throws -> Bool {
    let image = try readNpy(folder.appendingPathComponent("golden/images.npy"), size * size * 3)  // the first
    let golden = try readNpy(folder.appendingPathComponent("golden/expected.npy"), outputs * MemoryLayout<Float>.size)
    let expected = golden.withUnsafeBytes { bytes in
        (0..<outputs).map { bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Float>.size, as: Float.self) }
    }

    let found = try classifier.predict(image)
    guard found.count == outputs else { throw Unusable("the model gave \(found.count) outputs, not \(outputs)") }

    let differences = zip(found, expected).map { abs($0 - $1) }
@IF features@
    let allowed = @TOLERANCE@ * expected.map { abs($0) }.max()!
@FI@
@IF probabilities scores@
    let allowed: Float = @TOLERANCE@
@FI@
    let words = name(found, try readLabels(folder))
    print("\(words), largest difference to the expected output \(differences.max()!) (allowed \(allowed))")
    return differences.allSatisfy { $0 <= allowed }  // max() may pass over a NaN
}

func complain(_ why: String) { FileHandle.standardError.write(Data("\(why)\n".utf8)) }

/// The command line: what the photos after the folder show, or whether the golden image comes out right without any.
func run(_ folder: URL, _ classifier: Classifier) throws -> Bool {
    #if canImport(ImageIO)
    let photos = CommandLine.arguments.dropFirst(2)
    var read = true
    for photo in photos {
        do {
            let image = try prepare(photo: URL(fileURLWithPath: photo))
            print("\(photo): \(name(try classifier.predict(image), try readLabels(folder)))")
        } catch {  // the other photos are read
            complain("\(photo): cannot be read (\(error.localizedDescription))")
            read = false
        }
    }
    if !photos.isEmpty { return read }
    #endif
    return try checkGolden(folder, classifier)
}
