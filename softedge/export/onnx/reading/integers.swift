    guard data.count == outputs else { throw Unusable("another number of outputs") }
    // Integers in and out: a value is scale * (q - zero point), see contract.json.
    let values = data.map { Float(@SCALE@) * (Float($0) - @ZERO@) }
    if "@OUTPUT@" == "scores" { return values.map { 1 / (1 + exp(-$0)) } }
    if "@OUTPUT@" != "probabilities" { return values }
    let largest = values.max() ?? 0
    let powers = values.map { exp($0 - largest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
