/// What is likeliest; of scores every label that has 0.5 or more; the largest feature of a model without labels.
func name(_ found: [Float], _ labels: [String]) -> String {
    let best = found.indices.max { found[$0] < found[$1] }!
    let present = "@OUTPUT@" == "scores" ? found.indices.filter { found[$0] >= 0.5 } : [best]
    if present.isEmpty { return "no label, the highest: \(labels[best]) \(found[best])" }
    return present.map { "\(labels.isEmpty ? String($0) : labels[$0]) \(found[$0])" }.joined(separator: ", ")
}
