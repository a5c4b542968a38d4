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
