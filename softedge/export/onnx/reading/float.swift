    guard data.count == outputs * MemoryLayout<Float>.size else { throw Unusable("another number of outputs") }
    return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
