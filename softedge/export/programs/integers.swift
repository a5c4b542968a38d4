@IF integers@
/// What the output tensor's integers mean: a value is scale * (q - zero point), see contract.json.
func fromIntegers(_ integers: Data) -> [Float] {
    let values = integers.map { Float(@SCALE@) * (Float($0) - @ZERO@) }
@FI@
@IF softmax@
    let largest = values.max() ?? 0
    let powers = values.map { exp($0 - largest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
@FI@
@IF sigmoid@
    return values.map { 1 / (1 + exp(-$0)) }
@FI@
@IF identity@
    return values
@FI@
@IF integers@
}

@FI@
