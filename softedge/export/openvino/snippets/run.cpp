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

namespace fs = std::filesystem;

constexpr size_t size = @SIZE@, outputs = @OUTPUTS@;
[[maybe_unused]] constexpr int resize = @RESIZE@;  // pixels of the shorter side, before the crop
constexpr bool cubic = @CUBIC@;  // else bilinear

// The first `wanted` bytes of a NumPy file's values: after a header of known length, in C order.
static std::vector<char> read_npy(const fs::path &path, size_t wanted) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + " cannot be read");
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  const size_t header = bytes.size() < 10 ? 10 : 10 + uint8_t(bytes[8]) + 256 * size_t(uint8_t(bytes[9]));
  if (bytes.size() < header + wanted) throw std::runtime_error(path.string() + " is not the file of this model");
  const auto first = bytes.begin() + std::ptrdiff_t(header);
  return {first, first + std::ptrdiff_t(wanted)};
}

// The name of an output: its line in labels.txt, or its number where a model gives features and has no labels.
static std::string label(const fs::path &folder, size_t output) {
  std::ifstream file(folder / "snippets" / "labels.txt");
  std::string line;
  for (size_t i = 0; std::getline(file, line); ++i)
    if (i == output) return line;
  return std::to_string(output);
}

@PHOTO@

// uint8 RGB, size x size x 3 -> probabilities (or features). An app compiles the model once and keeps the request.
static std::vector<float> predict(const fs::path &model, std::vector<char> image) {
  ov::Core core;
  auto network = core.read_model(model.string());
  // A batch left open is slower, and with some int8 files OpenVINO 2026.4.1 then answers one image wrongly.
  network->reshape(ov::Shape{1, size, size, 3});
  // Left alone, OpenVINO computes in bf16 or f16 where the processor has it: faster, and other numbers.
  auto compiled = core.compile_model(network, "CPU", ov::hint::inference_precision(ov::element::f32));
  auto request = compiled.create_infer_request();
  request.set_input_tensor(ov::Tensor(ov::element::u8, {1, size, size, 3}, image.data()));
  request.infer();
  const ov::Tensor output = request.get_output_tensor();
  const float *found = output.data<float>();
  return {found, found + output.get_size()};
}

// True when the golden image gives the output that it gave on the machine that exported the model.
static bool check_golden(const fs::path &folder) {
  const std::vector<char> image = read_npy(folder / "golden" / "images.npy", size * size * 3);  // the first of several
  const std::vector<char> golden = read_npy(folder / "golden" / "expected.npy", outputs * sizeof(float));
  std::vector<float> expected(outputs);
  std::memcpy(expected.data(), golden.data(), golden.size());

  const std::vector<float> found = predict(folder / "@MODEL@", image);
  if (found.size() != outputs) throw std::runtime_error("the model gave another number of outputs");

  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::fabs(value));
  const bool probabilities = std::string("@OUTPUT@") == "probabilities";
  const float allowed = @TOLERANCE@f * (probabilities ? 1.0f : largest);

  float difference = 0;
  bool passed = true;
  for (size_t i = 0; i < outputs; ++i) {
    const float apart = std::fabs(found[i] - expected[i]);
    difference = std::max(difference, apart);
    passed = passed && apart <= allowed;  // not after the loop: std::max forgets a NaN
  }
  const auto best = size_t(std::max_element(found.begin(), found.end()) - found.begin());
  std::printf("%s %g, largest difference to the expected output %g (allowed %g)\n", label(folder, best).c_str(),
              found[best], difference, allowed);
  return passed;
}

int main(int argc, char **argv) {
  try {
    const fs::path folder = argc > 1 ? argv[1] : "..";
    for (int i = 2; i < argc; ++i) {
      const std::vector<float> found = predict(folder / "@MODEL@", prepare(fs::path(argv[i])));
      const auto best = size_t(std::max_element(found.begin(), found.end()) - found.begin());
      std::printf("%s: %s %g\n", argv[i], label(folder, best).c_str(), found[best]);
    }
    return argc > 2 || check_golden(folder) ? 0 : 1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
