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
