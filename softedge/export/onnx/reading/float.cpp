  const char *output_names[] = {"@OUTPUT@"};
  const auto results = session.Run(Ort::RunOptions{nullptr}, input_names, &input, 1, output_names, 1);
  const float *found = results[0].GetTensorData<float>();
  return {found, found + results[0].GetTensorTypeAndShapeInfo().GetElementCount()};
