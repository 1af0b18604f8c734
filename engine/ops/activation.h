// relu^2 outside a grouped GEMM: the shared expert, and the experts of eager execution.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

// h = relu(z)^2, one rounding. h may alias z.
struct Relu2Args {
  Tensor z, h;
};
// The gradient of relu^2 where du already carries its row's gate (see GroupedGemmArgs::hidden):
// dz = du * 2*sqrt(h), and with a gate gate_grad[r] = sum_n du * h / gate[r] (0 where gate is 0).
struct Relu2GradArgs {
  Tensor du, h, dz;
  Tensor gate, gate_grad;
};

namespace cpu {
void relu2(const Relu2Args&);
void relu2_grad(const Relu2GradArgs&);
}  // namespace cpu
}  // namespace assay
