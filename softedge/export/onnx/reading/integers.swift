    guard data.count == outputs else { throw Unusable("another number of outputs") }
    // Integers in and out: a value is scale * (q - zero point), see contract.json.
    let values = data.map { Float(@SCALE@) * (Float($0) - @ZERO@) }
@IF scores@
    return values.map { 1 / (1 + exp(-$0)) }
@FI@
@IF features@
    return values
@FI@
@IF probabilities@
    let largest = values.max() ?? 0
    let powers = values.map { exp($0 - largest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
@FI@
