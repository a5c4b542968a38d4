// SPDX-License-Identifier: Apache-2.0
// Runs the model on photos, and on a golden image to check itself, with ncnn's C++ API.
//   cmake: find_package(ncnn REQUIRED), target_link_libraries(run ncnn); then ./run ..
// configured with -Dncnn_DIR=NCNN/lib/cmake/ncnn, NCNN an unpacked release from https://github.com/Tencent/ncnn/releases
// ./run .. PHOTO ... classifies photos; for these put stb_image.h beside this file.

#include <ncnn/net.h>

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

// The model, loaded once.
class Classifier {
 public:
  explicit Classifier(const fs::path &model) {
    fs::path weights = model;
    weights.replace_extension(".bin");
    net.opt.num_threads = 1;
    if (net.load_param(model.string().c_str()) || net.load_model(weights.string().c_str()))
      throw std::runtime_error(model.string() + " or its .bin file cannot be loaded");
  }

  // uint8 RGB, size x size x 3 -> @OUTPUT@.
  std::vector<float> predict(const std::vector<char> &image) {
    // Planes in 0..255; do not call substract_mean_normalize: normalisation is inside.
    const auto *pixels = reinterpret_cast<const unsigned char *>(image.data());
    const ncnn::Mat input = ncnn::Mat::from_pixels(pixels, ncnn::Mat::PIXEL_RGB, int(size), int(size));
    ncnn::Extractor extractor = net.create_extractor();
    ncnn::Mat output;
    if (extractor.input("image", input) || extractor.extract("@OUTPUT@", output))
      throw std::runtime_error("@MODEL@ did not run");
    const float *found = output;
    return {found, found + output.w};
  }

 private:
  ncnn::Net net;
};

@END@
