// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with ExecuTorch's C++ API.
//   cmake 3.28 or later: find_package(executorch REQUIRED),
//   target_link_libraries(run executorch::runtime executorch::kernels_optimized executorch::backend_xnnpack); ./run ..
// configured with -Dexecutorch_DIR=SITE/executorch/share/cmake, SITE where pip put executorch. A build of ExecuTorch's
// sources names the same libraries otherwise.
// ./run .. PHOTO ... classifies photos; for these put stb_image.h beside this file.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

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

// The model, loaded once, at the first image. One thread at a time may call predict.
class Classifier {
 public:
  explicit Classifier(const fs::path &model) : module(model.string()) {}

  // uint8 RGB, size x size x 3 -> @OUTPUT@.
  std::vector<float> predict(std::vector<char> image) {
    const auto bytes = executorch::aten::ScalarType::Byte;
    auto tensor = executorch::extension::from_blob(image.data(), {1, size, size, 3}, bytes);
    const auto result = module.forward(tensor);
    if (!result.ok())
      throw std::runtime_error("@MODEL@ did not run (error " + std::to_string(int(result.error())) + ")");
    const auto output = result->at(0).toTensor();
    const float *found = output.const_data_ptr<float>();
    return {found, found + output.numel()};
  }

 private:
  executorch::extension::Module module;
};

@END@
