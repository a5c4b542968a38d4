@IF scores@
// Every label that has 0.5 or more, else the highest.
static std::string answer(const fs::path &folder, const std::vector<float> &found) {
  const auto best = size_t(std::max_element(found.begin(), found.end()) - found.begin());
  std::string names = found[best] < 0.5f ? "no label, the highest: " : "";
  for (size_t i = 0, count = 0; i < found.size(); ++i) {
    if (i != best && !(found[i] >= 0.5f)) continue;
    char value[32];
    std::snprintf(value, sizeof value, " %g", found[i]);
    names += (count++ ? ", " : "") + label(folder, i) + value;
  }
  return names;
}
@FI@
@IF probabilities@
// The likeliest label, and how likely it is.
@FI@
@IF features@
// The largest feature: the model has no labels.
@FI@
@IF probabilities features@
static std::string answer(const fs::path &folder, const std::vector<float> &found) {
  const auto best = size_t(std::max_element(found.begin(), found.end()) - found.begin());
  char value[32];
  std::snprintf(value, sizeof value, " %g", found[best]);
  return label(folder, best) + value;
}
@FI@

// True when the golden image gives the output that it gave on the machine that exported the model.
static bool check_golden(const fs::path &folder, Classifier &classifier) {
  const std::vector<char> image = read_npy(folder / "golden" / "images.npy", size * size * 3);  // the first of several
  const std::vector<char> golden = read_npy(folder / "golden" / "expected.npy", outputs * sizeof(float));
  std::vector<float> expected(outputs);
  std::memcpy(expected.data(), golden.data(), golden.size());

  const std::vector<float> found = classifier.predict(image);
  if (found.size() != outputs) throw std::runtime_error("the model gave another number of outputs");

@IF features@
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::fabs(value));
  const float allowed = @TOLERANCE@f * largest;
@FI@
@IF probabilities scores@
  const float allowed = @TOLERANCE@f;
@FI@

  float difference = 0;
  bool passed = true;
  for (size_t i = 0; i < outputs; ++i) {
    const float apart = std::fabs(found[i] - expected[i]);
    difference = std::max(difference, apart);
    passed = passed && apart <= allowed;  // not after the loop: std::max forgets a NaN
  }
  std::printf("%s, largest difference to the expected output %g (allowed %g)\n", answer(folder, found).c_str(),
              difference, allowed);
  return passed;
}

int main(int argc, char **argv) {
  try {
    const fs::path folder = argc > 1 ? argv[1] : "..";
    Classifier classifier(folder / "@MODEL@");
    bool unread = false;
    for (int i = 2; i < argc; ++i) {
      std::vector<char> image;
      try {
        image = prepare(fs::path(argv[i]));
      } catch (const std::exception &error) {  // the other photos are read
        std::fprintf(stderr, "%s: cannot be read (%s)\n", argv[i], error.what());
        unread = true;
        continue;
      }
      std::printf("%s: %s\n", argv[i], answer(folder, classifier.predict(image)).c_str());
    }
    if (argc > 2) return unread ? 1 : 0;
    return check_golden(folder, classifier) ? 0 : 1;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
