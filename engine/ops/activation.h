// relu^2 outside a grouped GEMM: the shared expert, and the experts of eager execution.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// h = relu(z)^2, one rounding. h may alias z.
struct Relu2Args {
  Tensor z, h;
};
// dz = gate[r] * du * 2*sqrt(h); optionally gate_grad[r] = sum du * h; then h *= gate[r].  gate empty = ones (h
// untouched).
struct Relu2GradArgs {
  Tensor du, h, dz;
  Tensor gate, gate_grad;
};

namespace cpu {
void relu2(const Relu2Args&);
void relu2_grad(const Relu2GradArgs&);
}  // namespace cpu
}  // namespace assay
