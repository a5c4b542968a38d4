@IF integers@
// What the output tensor's integers mean: a value is scale * (q - zero point), see contract.json.
static std::vector<float> from_integers(const uint8_t *integers, size_t count) {
  std::vector<float> values(integers, integers + count);
  for (float &value : values) value = @SCALE@f * (value - @ZERO@);
@FI@
@IF softmax@
  const float largest = *std::max_element(values.begin(), values.end());
  float sum = 0;
  for (float &value : values) sum += value = std::exp(value - largest);
  for (float &value : values) value /= sum;
@FI@
@IF sigmoid@
  for (float &value : values) value = 1 / (1 + std::exp(-value));
@FI@
@IF integers@
  return values;
}

@FI@
