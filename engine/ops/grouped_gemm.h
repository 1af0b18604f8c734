// Matrix products of the routed experts: one per group of rows, weights stacked [E, ...]. Empty groups are legal.
#pragma once

#include "engine/ops/quantize.h"
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
// are not written. groups.start == nullptr: one group of all rows.
struct GroupedGemmArgs {
  Groups groups;
  Tensor x, w;
  bool transpose_w = false;
  Quantized x8, w8;
  Tensor out;
  // Instead of `out`: FP8 codes, tensorwise, cast from the FP32 result of the epilogue. out8t [N, rows] is an optional
  // second copy of the same codes, the K-major operand of an FP8 weight gradient. The scale is out8_scale's
  // (DelayedScale of quantize.h), whose amax is raised; both Quantized::scales receive it. A scale that is not there
  // yet (0) follows from this call's amax as in quantize if `calibrate` says so, at the price of a second pass over the
  // product, because the amax must be known before the codes; without `calibrate` it counts as 1.
  Quantized out8, out8t;
  DelayedScale out8_scale;
  bool calibrate = false;
  GroupedEpilogue epilogue = GroupedEpilogue::none;
  // relu2_grad. x is dy times the gate of its row, so acc = u = gate * dy * W2. `hidden` [rows, N] (or hidden8) holds
  // h = relu(z)^2 from fprop and is not changed. Writes
  //   out[r, n]  = u * 2*sqrt(h)                         (= dL/dz)
  //   gate_grad[r] = sum_n u * h / gate[r]               (FP32, fixed order; 0 where gate is 0)
  // gate and gate_grad are both empty where there is no gate (the shared expert).
  Tensor hidden;
  Quantized hidden8;
  Tensor gate;       // f32 (f64) [rows], per permuted row
  Tensor gate_grad;  // f32 (f64) [rows]
};

// Weight gradient: dw[g][N, K] += sum over the group's rows of dy[r, N]^T * x[r, K], or = where `accumulate` is false;
// the sum of no row is 0. dw f32 (or f64) [E, N, K]. groups.start == nullptr: one group of all rows. FP8 (tensorwise
// only): dy8t [N, rows] and x8t [K, rows] are transposed copies, because FP8 products want the summed dimension
// innermost; their columns between a group's last row and the next multiple of 128 hold zeros.
struct GroupedWgradArgs {
  Groups groups;
  Tensor dy, x;
  Quantized dy8t, x8t;
  Tensor dw;
  bool accumulate = true;
};

namespace cpu {
void grouped_gemm(const GroupedGemmArgs&);
void grouped_wgrad(const GroupedWgradArgs&);
}  // namespace cpu
}  // namespace assay
