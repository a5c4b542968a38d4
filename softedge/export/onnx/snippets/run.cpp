// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with onnxruntime's C++ API.
//   g++ -std=c++17 run.cpp -I $ORT/include -L $ORT/lib -Wl,-rpath,$ORT/lib -lonnxruntime -o run && ./run ..
// ORT is an unpacked release from https://github.com/microsoft/onnxruntime/releases
// ./run .. PHOTO ... classifies photos; for these put stb_image.h beside this file.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

@BEGIN@

@PHOTO@

@INTEGERS@
// uint8 RGB, size x size x 3 -> @OUTPUT@. An app makes the session once and keeps it.
static std::vector<float> predict(const fs::path &model, std::vector<char> image) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "softedge");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, model.c_str(), options);

  const std::array<int64_t, 4> shape{1, size, size, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<uint8_t>(memory, reinterpret_cast<uint8_t *>(image.data()), image.size(),
                                                       shape.data(), shape.size());
  const char *input_names[] = {"image"};
  const char *output_names[] = {"@TENSOR@"};
  const auto results = session.Run(Ort::RunOptions{nullptr}, input_names, &input, 1, output_names, 1);
  const size_t count = results[0].GetTensorTypeAndShapeInfo().GetElementCount();
@IF float@
  const float *found = results[0].GetTensorData<float>();
  return {found, found + count};
@FI@
@IF integers@
  return from_integers(results[0].GetTensorData<uint8_t>(), count);
@FI@
}

@END@
