// Matrix products of the routed experts: one per group of rows, weights stacked [E, ...]. Empty groups are legal.
#pragma once

#include "engine/ops/tensor.h"

namespace assay {

enum class GroupedEpilogue : uint8_t {
  none,        // out = acc
  relu2,       // out = relu(acc)^2, from the FP32 accumulator; one rounding
  relu2_grad,  // see GroupedGemmArgs::hidden
};

// For every group g, its rows r: out[r, N] = epilogue(x[r, K] * w[g]^T), w [E, N, K] (fprop), or with transpose_w
// w [E, K, N]: out[r, N] = x[r, K] * w[g] (dgrad).  Either (x, w) or (x8, w8) is set; w8 is stored [E, N, K] always
// (the producer of weights keeps both orientations), so transpose_w does not apply to it. Rows outside every group
// are not written.
struct GroupedGemmArgs {
  Groups groups;
  Tensor x, w;
  bool transpose_w = false;
  Quantized x8, w8;
  Tensor out;
  GroupedEpilogue epilogue = GroupedEpilogue::none;
  // relu2_grad. acc = u = dx * W2 (ungated). In and out: `hidden` [rows, N] holds h = relu(z)^2 from fprop. Writes
  //   out[r, n]  = gate[r] * u * 2*sqrt(h)          (= dL/dz)
  //   gate_grad[r] = sum_n u * h                     (FP32, fixed order)
  //   hidden[r, n] = gate[r] * h                     (the operand of the W2 weight gradient)
  Tensor hidden;
  Tensor gate;       // f32 (f64) [rows], per permuted row
  Tensor gate_grad;  // f32 (f64) [rows]
};

// Weight gradient: dw[g][N, K] += sum over the group's rows of dy[r, N]^T * x[r, K]. dw f32 (or f64) [E, N, K].
// A group with no row leaves dw unchanged. FP8 (tensorwise only): dy8, x8 hold codes in row orientation [rows, .]; the
// CPU twin reads them as they are, a GPU keeps transposed copies.
struct GroupedWgradArgs {
  Groups groups;
  Tensor dy, x;
  Quantized dy8, x8;
  Tensor dw;
};

namespace cpu {
void grouped_gemm(const GroupedGemmArgs&);
void grouped_wgrad(const GroupedWgradArgs&);
}  // namespace cpu
}  // namespace assay
