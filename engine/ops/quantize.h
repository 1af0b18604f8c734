// BF16 (or FP32) -> FP8 with scales. On the GPU this rides in the producers; the twin is this op on the producer's
// rounded output, so both see the same values.
#pragma once

#include "engine/ops/lowp.h"
#include "engine/ops/tensor.h"

namespace assay {

// The largest number of an FP8 format.
inline float fp8_max(DType codes) {
  return codes == DType::fp8_e4m3 ? e4m3_max : e5m2_max;
}

// out.codes/out.scales (row orientation, [R, K]) and, when set, transposed ([K, R]) from the same input x.
// Scales: amax over the mode's group / max(format), in FP32; a group of zeros (or so close to zero that 1/scale is not
// finite) gets scale 1. codes = cast(x / scale),
// computed as cast(x * (1/scale)) with the reciprocal rounded to FP32 once.
// tensorwise with `delayed`: see DelayedScale.
// A stack [G, R, K] is quantised matrix by matrix.
struct DelayedScale {
  // [1] f32 each, device memory. scale == 0: not calibrated yet, see QuantizeArgs::calibrate. Otherwise scale is used
  // as it is (saturating). Either way amax is raised to this call's amax and scale is left to scale_update. Only for a
  // single matrix (or a stack of one).
  float* scale = nullptr;
  float* amax = nullptr;
};
struct QuantizeArgs {
  Tensor x;              // bf16 | f32
  Quantized out;         // one of the two may be empty
  Quantized transposed;  // its mode and format may differ from out's
  DelayedScale delayed;  // optional, tensorwise only
  float static_scale =
      0;  // > 0: use it for every group, no amax (a producer that bounds its output: |RMSNorm(x)_j| <= sqrt(d))
  // What a delayed scale of 0 stands for: true: the scale of this call's own amax, which costs a pass over x before;
  // false: 1.
  bool calibrate = true;
};
// Once per step: scale = amax * margin / format_max for every entry with amax > 0; amax = 0. n entries.
struct ScaleUpdateArgs {
  float* scale;
  float* amax;
  const float* format_max;  // [n]
  int64_t n;
  float margin;                   // > 1: headroom for growth between steps
  const int32_t* skip = nullptr;  // device: a step's verdict (step_state.h), or null; amax becomes 0 either way
};

namespace cpu {
void quantize(const QuantizeArgs&);
void scale_update(const ScaleUpdateArgs&);
}  // namespace cpu
}  // namespace assay
