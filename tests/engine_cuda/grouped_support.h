// Rows in expert order as route_plan lays them out on the GPU, and the comparisons of what products leave in them.
#pragma once

#include "cuda_support.h"
#include "engine/ops/cuda/gemm.h"

namespace assay::test {

// An array and its device copy, taken when it is made: the twin writes one, the CUDA op the other.
struct Pair {
  Array host;
  Mirror device;
  Pair() = default;
  explicit Pair(Array a) : host(std::move(a)), device(host) {}
};
struct Fp8Pair {
  Pair codes, scales;
  ScaleMode mode = ScaleMode::tensorwise;
  explicit Fp8Pair(const Fp8Array& a) : codes(a.codes), scales(a.scales), mode(a.mode) {}
  Quantized host() const { return {codes.host, scales.host, mode}; }
  Quantized device() const { return {codes.device, scales.device, mode}; }
};

// Groups at multiples of 128 rows, and 128 rows of no group at the end.
struct Layout {
  std::vector<int32_t> counts;
  int64_t R = 0;
  Pair start, rows;

  explicit Layout(std::vector<int32_t> c) : counts(std::move(c)) {
    Array s(DType::i32, {E()}), n(DType::i32, {E()});
    for (int64_t e = 0; e < E(); ++e) {
      s.set(e, static_cast<double>(R)), n.set(e, count(e));
      R += (count(e) + 127) / 128 * 128;
    }
    R += 128;
    start = Pair(s), rows = Pair(n);
  }
  int64_t E() const { return static_cast<int64_t>(counts.size()); }
  int32_t count(int64_t e) const { return counts[static_cast<size_t>(e)]; }
  Groups host() const { return groups(start.host.t(), rows.host.t()); }
  Groups device() const { return groups(start.device.t(), rows.device.t()); }
  // Whether row r is some group's.
  bool used(int64_t r) const {
    for (int64_t e = 0; e < E(); ++e) {
      if (r >= start.host.get(e) && r < start.host.get(e) + count(e)) return true;
    }
    return false;
  }
  std::string describe() const {
    std::string text = "counts";
    for (int32_t n : counts) text += " " + std::to_string(n);
    return text;
  }

 private:
  Groups groups(const Tensor& s, const Tensor& n) const {
    return {s.as<int32_t>(), n.as<int32_t>(), static_cast<int>(E())};
  }
};
inline std::vector<std::vector<int32_t>> count_sets() {
  return {{0, 1, 127, 128, 129}, {0, 300, 0}, {5, 0, 3, 250}, {1}};
}

// Keeps the rows of groups and sets the others to 0. transposed: a is [columns, R].
inline Array used_rows(const Layout& l, Array a, bool transposed = false) {
  const int64_t columns = a.size() / l.R;
  for (int64_t r = 0; r < l.R; ++r) {
    if (l.used(r)) continue;
    for (int64_t c = 0; c < columns; ++c) a.set(transposed ? c * l.R + r : r * columns + c, 0);
  }
  return a;
}
inline Array transposed(const Array& a, int64_t rows, int64_t columns) {
  Array to(a.dtype(), {columns, rows});
  const size_t size = size_of(a.dtype());
  const auto* from = a.t().as<uint8_t>();
  auto* out = to.t().as<uint8_t>();
  for (int64_t i = 0; i < rows * columns; ++i)
    std::memcpy(out + static_cast<size_t>(i % columns * rows + i / columns) * size,
                from + static_cast<size_t>(i) * size, size);
  return to;
}

// Padding rows hold zeros, as permute leaves them.
inline Array random_rows(Random& random, const Layout& l, DType dtype, int64_t columns, double scale = 1) {
  return used_rows(l, random_array(random, dtype, {l.R, columns}, scale));
}
// relu(z)^2, of a dtype
inline Array random_hidden(Random& random, const Layout& l, DType dtype, int64_t columns, double scale = 1) {
  Array h = random_rows(random, l, DType::f32, columns);
  for (int64_t i = 0; i < h.size(); ++i) h.set(i, h.get(i) > 0 ? scale * h.get(i) * h.get(i) : 0);
  return h.as(dtype);
}
inline Fp8Array fp8_of(const Array& codes, double scale) {
  Fp8Array a{codes, Array(DType::f32, {1}), ScaleMode::tensorwise};
  a.scales.set(0, scale);
  return a;
}
inline Fp8Array random_fp8_weights(Random& random, int64_t E, int64_t N, int64_t K) {
  Fp8Array w = fp8_stack(DType::fp8_e4m3, ScaleMode::tensorwise, E, N, K);
  for (int64_t i = 0; i < w.codes.size(); ++i) w.codes.set(i, 32 * random.normal());
  for (int64_t e = 0; e < E; ++e) w.scales.set(e, random.uniform(0.0005, 0.002));
  return w;
}

// Hopper's tensor cores keep about 14 bits of a sum of FP8 products (measured: 1.2e-3 to 2e-3 of the results' size,
// root mean square), where the twin has FP32. Seven times that.
constexpr double fp8_noise = 1e-2;
// growth: how much more than the results themselves an epilogue spreads that noise (relu^2 doubles it and its gradient
// multiplies it by 2 sqrt(h), both for the largest values most).
inline void expect_fp8_near(const std::string& what, const Array& got, const Array& want, double growth = 1) {
  const double relative = std::ldexp(1.001, got.dtype() == DType::bf16 ? -7 : -10);
  expect_near(what, got, want, growth * relative, growth * fp8_noise * rms(want));
}

// The place of a code in the order of its values.
inline int ordered(uint8_t code) {
  return (code & 0x80) != 0 ? -(code & 0x7F) : code & 0x7F;
}
// For the same reason a code may round the other way: it is at most one step off, or by no more than that noise, and
// few are off at all.
inline void expect_codes_near(const std::string& what, const Array& got, const Array& want, double share) {
  ASSERT_EQ(got.size(), want.size()) << what;
  const double noise = 2 * fp8_noise * rms(want);
  int64_t off = 0, bad = 0;
  for (int64_t i = 0; i < got.size(); ++i) {
    const int steps = std::abs(ordered(got.t().as<uint8_t>()[i]) - ordered(want.t().as<uint8_t>()[i]));
    off += steps != 0;
    if (steps <= 1 || std::fabs(got.get(i) - want.get(i)) <= noise || ++bad > 3) continue;
    ADD_FAILURE() << what << " seed " << seed() << ": code " << i << " is " << got.get(i) << ", the twin has "
                  << want.get(i);
  }
  EXPECT_LE(static_cast<double>(off), share * static_cast<double>(got.size()) + 4)
      << what << " seed " << seed() << ": " << off << " of " << got.size() << " codes differ";
}

}  // namespace assay::test
