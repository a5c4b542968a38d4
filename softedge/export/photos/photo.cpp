// The weights of one output pixel, and where in the line that is resized they begin.
struct Taps {
  int start = 0;
  std::vector<int> weights;
};

// Pillow's antialiased resampling of a line of `from` pixels to `to`, for the outputs first .. first + size:
// weights in double precision, rounded to 22 bits (Pillow, src/libImaging/Resample.c).
static std::vector<Taps> taps(int from, int to, int first) {
  const double scale = double(from) / to, stretch = std::max(scale, 1.0), reach = (cubic ? 2.0 : 1.0) * stretch;
  std::vector<Taps> found(size);
  for (int i = 0; i < int(size); ++i) {
    const double centre = (first + i + 0.5) * scale;
    const int start = std::max(0, int(centre - reach + 0.5)), end = std::min(from, int(centre + reach + 0.5));
    std::vector<double> exact;
    double sum = 0;
    for (int k = start; k < end; ++k) {
      const double x = std::fabs((k - centre + 0.5) * (1 / stretch));
      double weight = std::max(0.0, 1 - x);
      if (cubic) weight = x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
      exact.push_back(weight);
      sum += weight;
    }
    found[size_t(i)].start = start;
    for (const double weight : exact) {
      const double rounded = weight / sum * (1 << 22);
      found[size_t(i)].weights.push_back(int(rounded < 0 ? rounded - 0.5 : rounded + 0.5));
    }
  }
  return found;
}

// The sum of the pixels under `taps`, `step` bytes from each other, as 8 bits.
static uint8_t weighted(const Taps &taps, const uint8_t *pixel, size_t step) {
  int64_t sum = 1 << 21;
  for (const int weight : taps.weights) {
    sum += int64_t(weight) * *pixel;
    pixel += step;
  }
  return uint8_t(std::clamp<int64_t>(sum >> 22, 0, 255));
}

// An upright photo, uint8 RGB (height, width, 3), as the model expects it: shorter side to `resize` pixels, centre crop.
[[maybe_unused]] static std::vector<char> prepare(const std::vector<uint8_t> &rgb, int width, int height) {
  const int longest = 8 * std::min(width, height);  // of a longer strip only the middle is resized
  const int left = std::max(0, (width - longest) / 2), top = std::max(0, (height - longest) / 2);
  const int columns = std::min(width, longest), rows = std::min(height, longest);
  const int longer = int(int64_t(resize) * std::max(columns, rows) / std::min(columns, rows));
  const int wide = rows <= columns ? longer : resize, high = rows <= columns ? resize : longer;
  const auto middle = [](int side) { return int(std::nearbyint((side - int(size)) / 2.0)); };  // halves to even
  const std::vector<Taps> across = taps(columns, wide, middle(wide)), down = taps(rows, high, middle(high));
  const int from = down.front().start, until = down.back().start + int(down.back().weights.size());
  std::vector<uint8_t> lines(size_t(until - from) * size * 3);
  for (int y = from; y < until; ++y)
    for (size_t x = 0; x < size; ++x)
      for (size_t c = 0; c < 3; ++c) {
        const size_t at = (size_t(top + y) * size_t(width) + size_t(left + across[x].start)) * 3 + c;
        lines[(size_t(y - from) * size + x) * 3 + c] = weighted(across[x], &rgb[at], 3);
      }
  std::vector<char> image(size * size * 3);
  for (size_t y = 0; y < size; ++y)
    for (size_t x = 0; x < size * 3; ++x)
      image[y * size * 3 + x] = char(weighted(down[y], &lines[size_t(down[y].start - from) * size * 3 + x], size * 3));
  return image;
}

// How a JPEG is to be turned: Exif's tag 0x0112, 1 where there is none.
[[maybe_unused]] static int orientation(const std::vector<uint8_t> &file) {
  const auto number = [&](size_t at, size_t bytes, bool little) {
    size_t value = 0;
    for (size_t i = 0; i < bytes && at + i < file.size(); ++i)
      value |= size_t(file[at + i]) << 8 * (little ? i : bytes - 1 - i);
    return value;
  };
  if (number(0, 2, false) != 0xFFD8) return 1;
  for (size_t at = 2; at + 18 < file.size() && file[at] == 0xFF && file[at + 1] != 0xDA;) {
    if (file[at + 1] == 0xFF) {  // padding
      ++at;
      continue;
    }
    if (file[at + 1] == 0xE1 && std::memcmp(&file[at + 4], "Exif\0\0", 6) == 0) {
      const size_t tiff = at + 10;
      const bool little = file[tiff] == 'I';
      const size_t table = tiff + number(tiff + 4, 4, little), count = number(table, 2, little);
      for (size_t i = 0; i < count && table + 14 + 12 * i <= file.size(); ++i)
        if (number(table + 2 + 12 * i, 2, little) == 0x0112) return int(number(table + 10 + 12 * i, 2, little));
      return 1;
    }
    at += 2 + number(at + 2, 2, false);
  }
  return 1;
}

// A decoded photo made upright and laid on white. rgba: (height, width, 4); the sides are exchanged where it is turned.
[[maybe_unused]] static std::vector<uint8_t> upright(const uint8_t *rgba, int &width, int &height, int turn) {
  const int w = width, h = height;
  if (turn >= 5 && turn <= 8) std::swap(width, height);
  std::vector<uint8_t> rgb(size_t(w) * size_t(h) * 3);
  size_t to = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      int column = turn >= 5 && turn <= 8 ? y : x, row = turn >= 5 && turn <= 8 ? x : y;
      if (turn == 2 || turn == 3 || turn == 7 || turn == 8) column = w - 1 - column;
      if (turn == 3 || turn == 4 || turn == 6 || turn == 7) row = h - 1 - row;
      const uint8_t *pixel = rgba + (size_t(row) * size_t(w) + size_t(column)) * 4;
      for (int c = 0; c < 3; ++c) {
        const unsigned sum = (pixel[c] * pixel[3] + 255u * (255u - pixel[3])) * 128 + (128 << 7);
        rgb[to++] = uint8_t(((sum >> 8) + sum) >> 15);
      }
    }
  return rgb;
}

// Decodes a photo with stb_image.h (one header, public domain: https://github.com/nothings/stb) beside this file.
#if __has_include("stb_image.h")
#define STB_IMAGE_IMPLEMENTATION
#include "stb_image.h"

static std::vector<char> prepare(const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path.string() + " cannot be read");
  const std::vector<char> bytes((std::istreambuf_iterator<char>(stream)), {});
  const std::vector<uint8_t> file(bytes.begin(), bytes.end());
  int width = 0, height = 0, channels = 0;
  uint8_t *decoded = stbi_load_from_memory(file.data(), int(file.size()), &width, &height, &channels, 4);
  if (!decoded) throw std::runtime_error(path.string() + " cannot be decoded: " + stbi_failure_reason());
  const std::vector<uint8_t> rgb = upright(decoded, width, height, orientation(file));
  stbi_image_free(decoded);
  return prepare(rgb, width, height);
}
#else
static std::vector<char> prepare(const fs::path &path) {
  throw std::runtime_error(path.string() + ": put stb_image.h beside run.cpp to decode photos");
}
#endif
