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

// uint8 RGB, size x size x 3 -> @OUTPUT@. An app loads the module once and keeps it.
static std::vector<float> predict(const fs::path &model, std::vector<char> image) {
  executorch::extension::Module module(model.string());
  auto tensor = executorch::extension::from_blob(image.data(), {1, size, size, 3}, executorch::aten::ScalarType::Byte);
  const auto result = module.forward(tensor);
  if (!result.ok())
    throw std::runtime_error(model.string() + " did not run (error " + std::to_string(int(result.error())) + ")");
  const auto output = result->at(0).toTensor();
  const float *found = output.const_data_ptr<float>();
  return {found, found + output.numel()};
}

@END@
