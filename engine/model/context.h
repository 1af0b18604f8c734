// What every block of the model works with: sizes, ops, memory, weights, and how tensors become FP8.
#pragma once

#include <cmath>
#include <functional>
#include <string>

#include "engine/model/weights.h"

namespace assay {

// Called by a forward pass in checking mode after every operation, with the tensor it wrote.
using Probe = std::function<void(const std::string& name, const Tensor&)>;

struct Context {
  const RunConfig& config;
  const ModelShape& shape;
  Ops& ops;
  const Arena& arena;
  Weights& weights;
  DType act;     // activations
  DType master;  // weights, gradients, statistics
  Tensor tokens;
  Tensor cos, sin;
  Tensor fp8_scale, fp8_amax, ignored_amax;  // delayed scales; empty without FP8
  bool training = true;                      // false: a validation pass leaves no trace in the FP8 scales
  bool calibrating = true;                   // some delayed FP8 scale may not exist yet
  bool accumulating = true;                  // weight gradients are added to those there, not put in their place
  Probe probe;                               // usually empty

  Tensor take(const std::string& name, DType dtype, std::initializer_list<int64_t> dims) const {
    return arena.take(name, dtype, dims);
  }
  Tensor layer(int64_t i, const char* what, DType dtype, std::initializer_list<int64_t> dims) const {
    return arena.take(layer_name(i, what), dtype, dims);
  }
  // An FP8 activation or gradient [rows, cols].
  Quantized fp8(const std::string& name, DType format, int64_t rows, int64_t cols) const {
    return arena.take_fp8(name, format, scale_mode(shape.recipe, Fp8Operand::activation), {rows, cols});
  }
  // Of what a product writes in FP8 itself. A validation pass leaves no trace.
  DelayedScale delayed_scale(int64_t slot) const {
    return {fp8_scale.as<float>() + slot, training ? fp8_amax.as<float>() + slot : ignored_amax.as<float>()};
  }
  DType grad_format() const { return config.fp8.grad_format == Fp8Format::e4m3 ? DType::fp8_e4m3 : DType::fp8_e5m2; }
  void saw(const std::string& name, const Tensor& t) const {
    if (probe) probe(name, t);
  }
  void saw(int64_t i, const char* what, const Tensor& t) const {
    if (probe) probe(layer_name(i, what), t);
  }
};

// How large a tensor can be, for the tensorwise recipe: a slot of the delayed scales, or a known bound.
struct Fp8Range {
  int64_t slot = -1;  // -1: `static_scale`
  float static_scale = 0;
};
inline Fp8Range delayed_range(Fp8Slot slot, int64_t layer) {
  return {.slot = fp8_slot(slot, layer)};
}
// |RMSNorm(x)_j| <= sqrt(d)
inline Fp8Range norm_range(const ModelShape& s) {
  return {.static_scale = static_cast<float>(std::sqrt(static_cast<double>(s.d)) / 448.0)};
}

void quantize(const Context&, const Tensor& x, const Fp8Range&, const Quantized& out, const Quantized& transposed = {});

}  // namespace assay
