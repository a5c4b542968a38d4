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
// The model, loaded once. Any thread may call predict.
class Classifier {
 public:
  explicit Classifier(const fs::path &model) : session(env, model.c_str(), options()) {}

  // uint8 RGB, size x size x 3 -> @OUTPUT@.
  std::vector<float> predict(std::vector<char> image) {
    const std::array<int64_t, 4> shape{1, size, size, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto *pixels = reinterpret_cast<uint8_t *>(image.data());
    const auto input =
        Ort::Value::CreateTensor<uint8_t>(memory, pixels, image.size(), shape.data(), shape.size());
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

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions made;
    made.SetIntraOpNumThreads(1);
    return made;
  }

  Ort::Env env{ORT_LOGGING_LEVEL_ERROR, "softedge"};
  Ort::Session session;
};

@END@
