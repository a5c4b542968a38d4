// A double of the part of ncnn's C++ API that the snippet uses: enough to compile it where the headers are not, and to
// run what the snippet itself does. Its "model" is a file of the float32 answers, then the image they are for.
#pragma once

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace ncnn {

struct Option {
  int num_threads = 2;
};

// Planes of floats as from_pixels makes them, or a line of w floats.
struct Mat {
  enum PixelType { PIXEL_RGB = 1 };
  int w = 0;
  std::vector<float> values;

  static Mat from_pixels(const unsigned char *pixels, int type, int w, int h) {
    if (type != PIXEL_RGB) return {};
    Mat made{w, {}};
    for (int c = 0; c < 3; ++c)
      for (int i = 0; i < w * h; ++i) made.values.push_back(pixels[3 * i + c]);
    return made;
  }
  operator const float *() const { return values.data(); }
};

struct Extractor {
  const std::vector<char> &model;
  bool given = false;

  int input(const char *name, const Mat &image) {
    const size_t count = image.values.size(), plane = count / 3;
    if (std::string(name) != "image" || model.size() < count) return -1;
    for (size_t i = 0; i < count; ++i)
      if (static_cast<unsigned char>(model[model.size() - count + i]) != image.values[i % 3 * plane + i / 3]) return -1;
    given = true;
    return 0;
  }
  int extract(const char *name, Mat &found) {
    if (!given || std::string(name) != "probabilities") return -1;
    found.values.resize(found.w = 5);
    std::memcpy(found.values.data(), model.data(), 5 * sizeof(float));
    return 0;
  }
};

struct Net {
  Option opt;
  std::vector<char> model;

  int load_param(const char *path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return -1;
    model.assign(std::istreambuf_iterator<char>(file), {});
    return 0;
  }
  int load_model(const char *path) const { return std::ifstream(path) ? 0 : -1; }
  Extractor create_extractor() const { return {model}; }
};

}  // namespace ncnn
