// What matrix products read of the FP32 masters, made anew once per optimizer step.
#pragma once

#include <vector>

#include "engine/ops/tensor.h"

namespace assay {

struct WeightForms {
  Tensor x;                   // the master: [R, K] or a stack [G, R, K]
  Quantized out, transposed;  // codes as `quantize` makes them of x, or
  Tensor copy;                // x rounded to copy.dtype, as `cast` does it
};
// Codes of every matrix from its own amax. All weights go in one call: most of them alone do not fill a GPU.
struct PrepareWeightsArgs {
  std::vector<WeightForms> weights;
};

namespace cpu {
void prepare_weights(const PrepareWeightsArgs&);
}  // namespace cpu
}  // namespace assay
