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
