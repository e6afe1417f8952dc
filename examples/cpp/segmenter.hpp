// From RGB pixels to a mask of the same size with an exported SegFormer, on the TensorFlow Lite C API.
//
// The arithmetic is that of the Python class Segmenter: the image is fitted to the input by an antialiased bilinear
// resize in fixed point (Pillow's), and the class of a pixel is the largest of the logits at that place, which are
// interpolated between half-pixel centers. For files made by `segformer export`: those of other tools may want pixels
// normalized, and do not say so to the C API.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensorflow/lite/c/c_api.h"

namespace segformer {

// Class ids, row by row.
struct Mask {
  int height = 0, width = 0;
  std::vector<uint8_t> ids;
};

namespace detail {

// One output pixel of a resize: its first input pixel, and the weight of that and the following ones.
struct Taps {
  int first;
  std::vector<int32_t> weights;  // in units of 2^-22
};

constexpr int kFixedPointBits = 22;

// A triangle filter as wide as the reduction asks for.
inline std::vector<Taps> antialiased_taps(int in, int out) {
  const double scale = static_cast<double>(in) / out, support = std::max(scale, 1.0);
  std::vector<Taps> taps(out);
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(in, static_cast<int>(center + support + 0.5));
    std::vector<double> weights(end - first);
    double sum = 0;
    for (int k = 0; k < end - first; ++k) {
      weights[k] = std::max(0.0, 1.0 - std::abs((k + first - center + 0.5) * (1.0 / support)));
      sum += weights[k];
    }
    taps[i].first = first;
    for (double weight : weights)
      taps[i].weights.push_back(static_cast<int32_t>(0.5 + weight / sum * (1 << kFixedPointBits)));
  }
  return taps;
}

// Applies the taps along one axis of (outer, in, inner) bytes.
inline std::vector<uint8_t> resize_axis(const uint8_t* pixels, int outer, int in, int out, int inner) {
  const std::vector<Taps> taps = antialiased_taps(in, out);
  std::vector<uint8_t> result(static_cast<size_t>(outer) * out * inner);
  for (int o = 0; o < outer; ++o)
    for (int i = 0; i < out; ++i)
      for (int c = 0; c < inner; ++c) {
        int64_t sum = 1 << (kFixedPointBits - 1);
        for (size_t k = 0; k < taps[i].weights.size(); ++k)
          sum += static_cast<int64_t>(taps[i].weights[k]) *
                 pixels[(static_cast<size_t>(o) * in + taps[i].first + k) * inner + c];
        const int64_t value = sum >> kFixedPointBits;
        result[(static_cast<size_t>(o) * out + i) * inner + c] = static_cast<uint8_t>(std::min<int64_t>(value, 255));
      }
  return result;
}

// (height, width, 3) bytes to (out_height, out_width, 3). As in Pillow 13, an image that loses many rows goes down first.
inline std::vector<uint8_t> resize(const uint8_t* rgb, int height, int width, int out_height, int out_width) {
  std::vector<uint8_t> pixels(rgb, rgb + static_cast<size_t>(height) * width * 3);
  const bool down_first = height > out_height && height - out_height > 2 * (width - out_width);
  if (down_first) pixels = resize_axis(pixels.data(), 1, height, out_height, width * 3);
  if (width != out_width) pixels = resize_axis(pixels.data(), down_first ? out_height : height, width, out_width, 3);
  if (height != out_height && !down_first) pixels = resize_axis(pixels.data(), 1, height, out_height, out_width * 3);
  return pixels;
}

// The grid points on either side of each output position, and the weight of the second.
struct Cells {
  std::vector<int> low, high;
  std::vector<double> weight;
};

inline Cells cells(int in, int out) {
  Cells result;
  for (int i = 0; i < out; ++i) {
    const double place = (i + 0.5) * (static_cast<double>(in) / out) - 0.5;
    const int below = static_cast<int>(std::floor(place));
    result.low.push_back(std::clamp(below, 0, in - 1));
    result.high.push_back(std::clamp(below + 1, 0, in - 1));
    result.weight.push_back(place - below);
  }
  return result;
}

// Whether a file has the metadata of `segformer export`, a zip at its end.
inline bool is_ours(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file.tellg(), tail = std::min<std::streamoff>(size, 1 << 16);
  std::string end(static_cast<size_t>(std::max<std::streamoff>(tail, 0)), '\0');
  file.seekg(size - tail);
  file.read(end.data(), tail);
  return file && end.find("segformer.json") != std::string::npos;
}

// Arg-max of (h, w, classes) logits, interpolated at every pixel of the mask; the lowest of equal classes.
inline Mask to_mask(const std::vector<float>& logits, int h, int w, int classes, int height, int width) {
  const Cells rows = cells(h, height), columns = cells(w, width);
  std::vector<uint8_t> best(static_cast<size_t>(h) * w);
  for (size_t i = 0; i < best.size(); ++i) {
    const float* point = &logits[i * classes];
    best[i] = static_cast<uint8_t>(std::max_element(point, point + classes) - point);
  }
  Mask mask{height, width, std::vector<uint8_t>(static_cast<size_t>(height) * width)};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const size_t corners[4] = {static_cast<size_t>(rows.low[y]) * w + columns.low[x],
                                 static_cast<size_t>(rows.low[y]) * w + columns.high[x],
                                 static_cast<size_t>(rows.high[y]) * w + columns.low[x],
                                 static_cast<size_t>(rows.high[y]) * w + columns.high[x]};
      uint8_t& id = mask.ids[static_cast<size_t>(y) * width + x];
      id = best[corners[0]];
      // Four corners of one class: so is everything between them.
      if (id == best[corners[1]] && id == best[corners[2]] && id == best[corners[3]]) continue;
      const double down = rows.weight[y], across = columns.weight[x];
      double largest = 0;
      for (int c = 0; c < classes; ++c) {
        double value[4];
        for (int k = 0; k < 4; ++k) value[k] = logits[corners[k] * classes + c];
        const double before = value[0] + (value[2] - value[0]) * down;
        const double after = value[1] + (value[3] - value[1]) * down;
        const double logit = before + (after - before) * across;
        if (c == 0 || logit > largest) {
          largest = logit;
          id = static_cast<uint8_t>(c);
        }
      }
    }
  return mask;
}

}  // namespace detail

// A model, ready to run; not for several threads at once. Throws std::runtime_error for a file that cannot be used.
class Segmenter {
 public:
  explicit Segmenter(const std::string& path, int threads = 4)
      : model_(TfLiteModelCreateFromFile(path.c_str()), TfLiteModelDelete) {
    if (!model_) throw std::runtime_error(path + ": not a readable .tflite file");
    std::unique_ptr<TfLiteInterpreterOptions, decltype(&TfLiteInterpreterOptionsDelete)> options(
        TfLiteInterpreterOptionsCreate(), TfLiteInterpreterOptionsDelete);
    TfLiteInterpreterOptionsSetNumThreads(options.get(), threads);
    interpreter_ = {TfLiteInterpreterCreate(model_.get(), options.get()), TfLiteInterpreterDelete};
    if (!interpreter_ || TfLiteInterpreterAllocateTensors(interpreter_.get()) != kTfLiteOk)
      throw std::runtime_error(path + ": the runtime refuses it");
    if (!detail::is_ours(path)) throw std::runtime_error(path + ": not a file of segformer export");
    const int inputs = TfLiteInterpreterGetInputTensorCount(interpreter_.get());
    if (inputs == 1) input_ = TfLiteInterpreterGetInputTensor(interpreter_.get(), 0);
    if (!input_ || !is_image(input_) || !find_logits())
      throw std::runtime_error(path + ": expected RGB of 0..255 in, float32 or uint8, and logits of 2..255 classes out");
  }

  int input_height() const { return TfLiteTensorDim(input_, 1); }
  int input_width() const { return TfLiteTensorDim(input_, 2); }

  // Segments (height, width, 3) bytes of RGB, row by row without padding.
  Mask operator()(const uint8_t* rgb, int height, int width) {
    const std::vector<uint8_t> pixels = detail::resize(rgb, height, width, input_height(), input_width());
    if (TfLiteTensorType(input_) == kTfLiteUInt8) {
      std::copy(pixels.begin(), pixels.end(), static_cast<uint8_t*>(TfLiteTensorData(input_)));
    } else {
      std::copy(pixels.begin(), pixels.end(), static_cast<float*>(TfLiteTensorData(input_)));
    }
    if (TfLiteInterpreterInvoke(interpreter_.get()) != kTfLiteOk) throw std::runtime_error("the runtime failed");
    const TfLiteTensor* output = TfLiteInterpreterGetOutputTensor(interpreter_.get(), output_);
    return detail::to_mask(logits(output), TfLiteTensorDim(output, 1), TfLiteTensorDim(output, 2),
                           TfLiteTensorDim(output, 3), height, width);
  }

 private:
  static bool is_image(const TfLiteTensor* tensor) {
    const TfLiteType type = TfLiteTensorType(tensor);
    return TfLiteTensorNumDims(tensor) == 4 && TfLiteTensorDim(tensor, 0) == 1 && TfLiteTensorDim(tensor, 3) == 3 &&
           (type == kTfLiteFloat32 || type == kTfLiteUInt8);
  }

  // Whether there are logits; with --class-map they come after a map of class ids.
  bool find_logits() {
    for (output_ = 0; output_ < TfLiteInterpreterGetOutputTensorCount(interpreter_.get()); ++output_) {
      const TfLiteTensor* tensor = TfLiteInterpreterGetOutputTensor(interpreter_.get(), output_);
      const TfLiteType type = TfLiteTensorType(tensor);
      if (TfLiteTensorNumDims(tensor) == 4 && TfLiteTensorDim(tensor, 0) == 1 && TfLiteTensorDim(tensor, 3) >= 2 &&
          TfLiteTensorDim(tensor, 3) <= 255 &&
          (type == kTfLiteFloat32 || type == kTfLiteInt8 || type == kTfLiteUInt8 || type == kTfLiteInt16))
        return true;
    }
    return false;
  }

  static std::vector<float> logits(const TfLiteTensor* output) {
    switch (TfLiteTensorType(output)) {
      case kTfLiteInt8: return real<int8_t>(output);
      case kTfLiteUInt8: return real<uint8_t>(output);
      case kTfLiteInt16: return real<int16_t>(output);
      default: return real<float>(output);
    }
  }

  template <typename T>
  static std::vector<float> real(const TfLiteTensor* output) {
    const T* stored = static_cast<const T*>(TfLiteTensorData(output));
    std::vector<float> values(stored, stored + TfLiteTensorByteSize(output) / sizeof(T));
    const TfLiteQuantizationParams stored_as = TfLiteTensorQuantizationParams(output);
    if (stored_as.scale != 0)
      for (float& value : values) value = (value - stored_as.zero_point) * stored_as.scale;
    return values;
  }

  std::unique_ptr<TfLiteModel, decltype(&TfLiteModelDelete)> model_;
  std::unique_ptr<TfLiteInterpreter, decltype(&TfLiteInterpreterDelete)> interpreter_{nullptr, TfLiteInterpreterDelete};
  TfLiteTensor* input_ = nullptr;
  int output_ = 0;
};

}  // namespace segformer
