// Runs the model on a golden image with ExecuTorch's C++ API.
//   cmake: find_package(executorch REQUIRED); link extension_module_static, extension_tensor, portable_ops_lib,
//   xnnpack_backend
// Before the model: @BEFORE@.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

// The numbers of a NumPy file: a header of known length, then the values in C order.
static std::vector<char> read_npy(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.size() < 10) {
    std::fprintf(stderr, "%s cannot be read\n", path.c_str());
    std::exit(2);
  }
  const size_t header = 10 + static_cast<uint8_t>(bytes[8]) + 256 * static_cast<uint8_t>(bytes[9]);
  return {bytes.begin() + header, bytes.end()};
}

int main(int argc, char **argv) {
  const std::string folder = argc > 1 ? argv[1] : "..";
  constexpr int size = @SIZE@, outputs = @OUTPUTS@;

  std::vector<char> image = read_npy(folder + "/golden/images.npy");  // uint8 RGB, the first of several
  std::vector<char> golden = read_npy(folder + "/golden/expected.npy");
  std::vector<float> expected(outputs);
  std::memcpy(expected.data(), golden.data(), outputs * sizeof(float));

  executorch::extension::Module module(folder + "/@MODEL@");
  auto tensor = executorch::extension::from_blob(image.data(), {1, size, size, 3}, executorch::aten::ScalarType::Byte);
  const auto result = module.forward(tensor);
  if (!result.ok()) {
    std::fprintf(stderr, "the model did not run (error %d)\n", static_cast<int>(result.error()));
    return 2;
  }
  const float *found = result->at(0).toTensor().const_data_ptr<float>();

  const auto best = std::max_element(found, found + outputs) - found;
  float difference = 0, largest = 0;
  for (int i = 0; i < outputs; ++i) {
    difference = std::max(difference, std::fabs(found[i] - expected[i]));
    largest = std::max(largest, std::fabs(expected[i]));
  }
  const bool probabilities = std::string("@OUTPUT@") == "probabilities";
  const float allowed = @TOLERANCE@f * (probabilities ? 1.0f : largest);
  std::printf("best %td (%g), largest difference to the expected output %g (allowed %g)\n", best, found[best],
              difference, allowed);
  return difference <= allowed ? 0 : 1;
}
