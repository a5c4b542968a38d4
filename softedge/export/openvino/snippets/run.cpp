// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with OpenVINO's C++ API.
//   cmake: find_package(OpenVINO REQUIRED), target_link_libraries(run openvino::runtime); then ./run ..
// ./run .. PHOTO ... classifies photos; for these put stb_image.h beside this file.

#include <openvino/openvino.hpp>

#include <algorithm>
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

// The model, compiled once. One thread at a time may call predict.
class Classifier {
 public:
  explicit Classifier(const fs::path &model) {
    auto network = core.read_model(model.string());
    // A batch left open is slower, and with some int8 files OpenVINO 2026.4.1 then answers one image wrongly.
    network->reshape(ov::Shape{1, size, size, 3});
    // f32 is what the check judged and what bench times on a PC. Left alone, OpenVINO computes in bf16 or f16 where the
    // processor has it: faster, and other answers. bench times fp16 files so on ARM boards; on a PC, with
    // --devices local:precision=default.
    auto compiled = core.compile_model(network, "CPU", ov::hint::inference_precision(ov::element::f32));
    request = compiled.create_infer_request();
  }

  // uint8 RGB, size x size x 3 -> @OUTPUT@.
  std::vector<float> predict(std::vector<char> image) {
    request.set_input_tensor(ov::Tensor(ov::element::u8, {1, size, size, 3}, image.data()));
    request.infer();
    const ov::Tensor output = request.get_output_tensor();
    const float *found = output.data<float>();
    return {found, found + output.get_size()};
  }

 private:
  ov::Core core;
  ov::InferRequest request;
};

@END@
