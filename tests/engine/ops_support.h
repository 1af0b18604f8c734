// Arrays, random values, comparisons and gradient checks for the tests of the ops.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/ops/backend.h"
#include "engine/ops/error.h"
#include "engine/ops/lowp.h"

namespace assay::test {

// Seed of every random value: ASSAY_TEST_SEED, else 1. Failure messages carry it.
inline uint64_t seed() {
  const char* text = std::getenv("ASSAY_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}

class Random {
 public:
  // salt: different streams for different tests
  explicit Random(uint64_t salt) : engine_(seed() * 0x9E3779B97F4A7C15ull + salt) {}
  double normal() { return std::normal_distribution<double>()(engine_); }
  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }

 private:
  std::mt19937_64 engine_;
};

// Owns the memory of a tensor, zero-filled. Copies are deep.
class Array {
 public:
  Array() = default;
  Array(DType dtype, std::initializer_list<int64_t> dims) : shape_(nullptr, dtype, dims), memory_(bytes_of(shape_)) {}

  Tensor t() const {
    Tensor tensor = shape_;
    tensor.data = const_cast<std::byte*>(reinterpret_cast<const std::byte*>(memory_.data()));
    return tensor;
  }
  operator Tensor() const { return t(); }
  int64_t size() const { return shape_.numel(); }
  DType dtype() const { return shape_.dtype; }

  double get(int64_t i) const {
    const Tensor a = t();
    switch (a.dtype) {
      case DType::f64:
        return a.as<double>()[i];
      case DType::f32:
        return a.as<float>()[i];
      case DType::bf16:
        return bf16_to_float(a.as<uint16_t>()[i]);
      case DType::fp8_e4m3:
        return e4m3_to_float(a.as<uint8_t>()[i]);
      case DType::fp8_e5m2:
        return e5m2_to_float(a.as<uint8_t>()[i]);
      case DType::i32:
        return a.as<int32_t>()[i];
      case DType::u8:
        return a.as<uint8_t>()[i];
    }
    return 0;
  }
  void set(int64_t i, double value) {
    const Tensor a = t();
    switch (a.dtype) {
      case DType::f64:
        a.as<double>()[i] = value;
        break;
      case DType::f32:
        a.as<float>()[i] = static_cast<float>(value);
        break;
      case DType::bf16:
        a.as<uint16_t>()[i] = float_to_bf16(static_cast<float>(value));
        break;
      case DType::fp8_e4m3:
        a.as<uint8_t>()[i] = float_to_e4m3(static_cast<float>(value));
        break;
      case DType::fp8_e5m2:
        a.as<uint8_t>()[i] = float_to_e5m2(static_cast<float>(value));
        break;
      case DType::i32:
        a.as<int32_t>()[i] = static_cast<int32_t>(value);
        break;
      case DType::u8:
        a.as<uint8_t>()[i] = static_cast<uint8_t>(value);
        break;
    }
  }
  void fill(double value) {
    for (int64_t i = 0; i < size(); ++i) set(i, value);
  }
  // The same values (rounded if need be) in another dtype.
  Array as(DType dtype) const {
    Array to;
    to.shape_ = shape_;
    to.shape_.dtype = dtype;
    to.memory_.resize(bytes_of(to.shape_));
    for (int64_t i = 0; i < size(); ++i) to.set(i, get(i));
    return to;
  }
  bool same_bytes(const Array& other) const { return memory_ == other.memory_; }

 private:
  // In doubles, for alignment.
  static size_t bytes_of(const Tensor& t) { return t.bytes() / sizeof(double) + 1; }
  Tensor shape_;
  std::vector<double> memory_;
};

inline Array random_array(Random& random, DType dtype, std::initializer_list<int64_t> dims, double scale = 1) {
  Array a(dtype, dims);
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, scale * random.normal());
  return a;
}
inline Array random_integers(Random& random, std::initializer_list<int64_t> dims, int64_t low, int64_t high) {
  Array a(DType::i32, dims);
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(random.integer(low, high)));
  return a;
}
// Values that bf16 can hold, in f64: references for bf16 runs start from the same numbers.
inline Array random_bf16_values(Random& random, std::initializer_list<int64_t> dims, double scale = 1) {
  return random_array(random, DType::bf16, dims, scale).as(DType::f64);
}

inline double rms(const Array& a) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += a.get(i) * a.get(i);
  return std::sqrt(sum / static_cast<double>(std::max<int64_t>(1, a.size())));
}
inline double dot(const Array& a, const Array& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += a.get(i) * b.get(i);
  return sum;
}

// |got - want| <= relative * |want| + absolute, element by element; at most three mismatches are printed.
inline void expect_near(const std::string& what, const Array& got, const Array& want, double relative,
                        double absolute) {
  ASSERT_EQ(got.size(), want.size()) << what;
  int bad = 0;
  for (int64_t i = 0; i < got.size() && bad < 3; ++i) {
    const double error = std::fabs(got.get(i) - want.get(i));
    if (error <= relative * std::fabs(want.get(i)) + absolute) continue;
    ++bad;
    ADD_FAILURE() << what << " " << got.t().describe() << " seed " << seed() << ": element " << i << " is "
                  << got.get(i) << ", expected " << want.get(i) << " (error " << error << ")";
  }
}

// got is `want` (f64) after `roundings` roundings to got's dtype and FP32 arithmetic of relative error `arithmetic`
// times the size of the tensor's values.
inline void expect_rounded(const std::string& what, const Array& got, const Array& want, double roundings = 1,
                           double arithmetic = 4e-6) {
  const double unit = got.dtype() == DType::bf16  ? std::ldexp(1.0, -8)
                      : got.dtype() == DType::f32 ? std::ldexp(1.0, -24)
                                                  : 0;
  const double fp32 = got.dtype() == DType::f64 ? 1e-13 : arithmetic;
  expect_near(what, got, want, 1.001 * roundings * unit, (fp32 + (roundings - 1) * unit) * rms(want) + 1e-30);
}

// Compares `gradient` with central differences of loss() with respect to `input` (f64), at up to `samples` elements.
inline void check_gradient(const std::string& what, const std::function<double()>& loss, Array& input,
                           const Array& gradient, double tolerance = 1e-6, int64_t samples = 48) {
  ASSERT_EQ(input.dtype(), DType::f64) << what;
  ASSERT_EQ(input.size(), gradient.size()) << what;
  const double size = rms(gradient);
  ASSERT_GT(size, 0) << what << " seed " << seed() << ": the gradient is zero everywhere, nothing to compare";
  Random random(77);
  const bool all = input.size() <= samples;
  int bad = 0;
  for (int64_t s = 0; s < std::min(samples, input.size()) && bad < 3; ++s) {
    const int64_t i = all ? s : random.integer(0, input.size() - 1);
    const double x = input.get(i), h = 1e-5 * std::max(1.0, std::fabs(x));
    input.set(i, x + h);
    const double above = loss();
    input.set(i, x - h);
    const double below = loss();
    input.set(i, x);
    const double difference = (above - below) / (2 * h);
    if (std::fabs(difference - gradient.get(i)) <= tolerance * std::max(size, std::fabs(difference))) continue;
    ++bad;
    ADD_FAILURE() << what << " " << input.t().describe() << " seed " << seed() << ": element " << i << " has gradient "
                  << gradient.get(i) << ", central difference " << difference;
  }
}

// An owned FP8 matrix or stack.
struct Fp8Array {
  Array codes, scales;
  ScaleMode mode = ScaleMode::tensorwise;
  Quantized q() const { return {codes.t(), scales.t(), mode}; }
  operator Quantized() const { return q(); }
};
inline Fp8Array fp8_array(DType format, ScaleMode mode, int64_t R, int64_t K) {
  const int64_t k_blocks = (K + 127) / 128, r_blocks = (R + 127) / 128;
  switch (mode) {
    case ScaleMode::tensorwise:
      return {Array(format, {R, K}), Array(DType::f32, {1}), mode};
    case ScaleMode::rowwise:
      return {Array(format, {R, K}), Array(DType::f32, {R}), mode};
    case ScaleMode::block_1x128:
      return {Array(format, {R, K}), Array(DType::f32, {R, k_blocks}), mode};
    case ScaleMode::block_128x128:
      return {Array(format, {R, K}), Array(DType::f32, {r_blocks, k_blocks}), mode};
  }
  return {};
}
// As above for a stack [G, R, K].
inline Fp8Array fp8_stack(DType format, ScaleMode mode, int64_t G, int64_t R, int64_t K) {
  const int64_t per_matrix = fp8_array(format, mode, R, K).scales.size();
  return {Array(format, {G, R, K}), Array(DType::f32, {G, per_matrix}), mode};
}
// Where the scale of element (r, k) stands among the scales of one matrix.
inline int64_t scale_index(ScaleMode mode, int64_t r, int64_t k, int64_t K) {
  const int64_t k_blocks = (K + 127) / 128;
  switch (mode) {
    case ScaleMode::tensorwise:
      return 0;
    case ScaleMode::rowwise:
      return r;
    case ScaleMode::block_1x128:
      return r * k_blocks + k / 128;
    case ScaleMode::block_128x128:
      return (r / 128) * k_blocks + k / 128;
  }
  return 0;
}
// code * scale in f64, matrix by matrix.
inline Array dequantize(const Fp8Array& a, int64_t R, int64_t K) {
  Array out(DType::f64, {a.codes.size() / K, K});
  const int64_t groups = a.codes.size() / (R * K), per_matrix = a.scales.size() / groups;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < R * K; ++i) {
      const double scale = a.scales.get(g * per_matrix + scale_index(a.mode, i / K, i % K, K));
      out.set(g * R * K + i, a.codes.get(g * R * K + i) * scale);
    }
  }
  return out;
}
inline Fp8Array random_fp8(Random& random, DType format, ScaleMode mode, int64_t R, int64_t K) {
  Fp8Array a = fp8_array(format, mode, R, K);
  for (int64_t i = 0; i < R * K; ++i) a.codes.set(i, 16 * random.normal());
  for (int64_t i = 0; i < a.scales.size(); ++i) a.scales.set(i, random.uniform(0.01, 0.1));
  return a;
}

// The message of the EngineError that f throws; fails the test if it throws none.
inline std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const EngineError& error) {
    EXPECT_EQ(error.reason, FailureReason::internal);
    return error.what();
  }
  ADD_FAILURE() << "no EngineError was thrown";
  return {};
}

}  // namespace assay::test
