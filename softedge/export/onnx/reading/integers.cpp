  const char *output_names[] = {"@TENSOR@"};
  const auto results = session.Run(Ort::RunOptions{nullptr}, input_names, &input, 1, output_names, 1);
  // Integers in and out: a value is scale * (q - zero point), see contract.json.
  const uint8_t *integers = results[0].GetTensorData<uint8_t>();
  std::vector<float> values(integers, integers + results[0].GetTensorTypeAndShapeInfo().GetElementCount());
  for (float &value : values) value = @SCALE@f * (value - @ZERO@);
@IF scores@
  for (float &value : values) value = 1 / (1 + std::exp(-value));
@FI@
@IF probabilities@
  const float largest = *std::max_element(values.begin(), values.end());
  float sum = 0;
  for (float &value : values) sum += value = std::exp(value - largest);
  for (float &value : values) value /= sum;
@FI@
  return values;
