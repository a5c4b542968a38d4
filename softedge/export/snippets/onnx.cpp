// Runs the model on a golden image with onnxruntime's C++ API.
//   g++ -std=c++17 run.cpp -I $ORT/include -L $ORT/lib -lonnxruntime -o run && ./run ..
// ORT is an unpacked release from https://github.com/microsoft/onnxruntime/releases
// Before the model: @BEFORE@.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
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
  constexpr int64_t size = @SIZE@, outputs = @OUTPUTS@;

  std::vector<char> image = read_npy(folder + "/golden/images.npy");  // uint8 RGB, the first of several
  std::vector<char> golden = read_npy(folder + "/golden/expected.npy");
  std::vector<float> expected(outputs);
  std::memcpy(expected.data(), golden.data(), outputs * sizeof(float));

  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "softedge");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, (folder + "/@MODEL@").c_str(), options);

  const std::array<int64_t, 4> shape{1, size, size, 3};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, reinterpret_cast<uint8_t *>(image.data()), size * size * 3,
                                                 shape.data(), shape.size());
  const char *input_names[] = {"image"};
  const char *output_names[] = {"@OUTPUT@"};
  auto results = session.Run(Ort::RunOptions{nullptr}, input_names, &input, 1, output_names, 1);
  const float *found = results[0].GetTensorData<float>();

  const auto best = std::max_element(found, found + outputs) - found;
  float difference = 0, largest = 0;
  for (int64_t i = 0; i < outputs; ++i) {
    difference = std::max(difference, std::fabs(found[i] - expected[i]));
    largest = std::max(largest, std::fabs(expected[i]));
  }
  const bool probabilities = std::string("@OUTPUT@") == "probabilities";
  const float allowed = @TOLERANCE@f * (probabilities ? 1.0f : largest);
  std::printf("best %td (%g), largest difference to the expected output %g (allowed %g)\n", best, found[best],
              difference, allowed);
  return difference <= allowed ? 0 : 1;
}
