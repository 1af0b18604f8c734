// What the two directions of QK-norm + RoPE share: a warp works on one row; a head is held by D / 16 lanes, each with
// eight columns of its first half and the eight that they rotate with.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/norm.h"
#include "engine/ops/rope.h"

namespace assay::cuda {

constexpr int gate_columns = 12;  // leading columns of n that drive the value-embedding gate

struct RopeShape {
  int64_t N, T;
  int H, d;  // d: width of n, 0 without value embeddings
};

// A head of D = 16 * lanes columns.
template <int lanes_>
struct HeadLayout {
  static constexpr int lanes = lanes_;
  static constexpr int D = 16 * lanes;
  static constexpr int heads_at_once = 32 / lanes;
  static __device__ __forceinline__ int head() { return threadIdx.x % 32 / lanes; }
  static __device__ __forceinline__ int column() { return threadIdx.x % lanes * vec; }  // and column() + D / 2
};

template <class F>
void dispatch_head(const char* op, const Tensor& packed, F&& f) {
  switch (packed.dim(3)) {
    case 16:
      return f(HeadLayout<1>{});
    case 32:
      return f(HeadLayout<2>{});
    case 64:
      return f(HeadLayout<4>{});
    case 128:
      return f(HeadLayout<8>{});
    default:
      fail_op(op, __FILE__, __LINE__, packed.describe() + " has a head size other than 16, 32, 64 and 128");
  }
}

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

// n[:12] . gate_w[h], in the order of the columns.
template <class S>
__device__ __forceinline__ float gate_logit(const S* n, const float* gate_w) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < gate_columns; ++c) sum += to_float(n[c]) * gate_w[c];
  return sum;
}

// The gradient of a head's raw columns, of which the L::lanes lanes hold two vectors each: of the first half and those
// that they rotate with. Every rounding is spelled out: the plain and the FP8 kernel give the same bits, so that a run
// that begins with the one, to calibrate, goes on with the other.
template <class L, class S>
__device__ __forceinline__ void rotate_and_norm_grad(const Packed<S> (&dy)[2], const Packed<S> (&y)[2],
                                                     const float (&cos)[vec], const float (&sin)[vec], float rstd,
                                                     float (&out1)[vec], float (&out2)[vec]) {
  float dot = 0;
#pragma unroll
  for (int i = 0; i < vec; ++i) dot = __fmaf_rn(dy[0].get(i), y[0].get(i), __fmaf_rn(dy[1].get(i), y[1].get(i), dot));
  const float mean = warp_sum<L::lanes>(dot) / static_cast<float>(L::D);
#pragma unroll
  for (int i = 0; i < vec; ++i) {
    const float g1 = __fmul_rn(rstd, __fmaf_rn(-y[0].get(i), mean, dy[0].get(i)));
    const float g2 = __fmul_rn(rstd, __fmaf_rn(-y[1].get(i), mean, dy[1].get(i)));
    out1[i] = __fmaf_rn(g1, cos[i], -__fmul_rn(g2, sin[i]));
    out2[i] = __fmaf_rn(g1, sin[i], __fmul_rn(g2, cos[i]));
  }
}

template <class Args>
RopeShape check_rope(const char* op, const Args& a, const Tensor& packed) {
  ASSAY_OP_CHECK(op, packed && packed.rank == 4 && packed.dim(1) == 3 && packed.numel() > 0,
                 "packed projection is " + packed.describe() + ", expected [N, 3, H, D]");
  const int64_t N = packed.dim(0), H = packed.dim(2), D = packed.dim(3);
  check_vectors(op, "packed projection", packed, D);
  ASSAY_OP_CHECK(op, a.T > 0 && N % a.T == 0,
                 std::to_string(N) + " rows are not whole sequences of " + std::to_string(a.T));
  check_tensor(op, "cos", a.cos, DType::f32, {a.T, D / 2});
  check_tensor(op, "sin", a.sin, DType::f32, {a.T, D / 2});
  check_vectors(op, "cos", a.cos, D / 2);
  check_vectors(op, "sin", a.sin, D / 2);
  check_tensor(op, "rstd", a.rstd, DType::f32, {N * 2 * H});
  RopeShape s{N, a.T, static_cast<int>(H), 0};
  if (!a.ve_table) return s;
  check_tensor(op, "tokens", a.tokens, DType::i32, {N});
  check_tensor(op, "ve_table", a.ve_table, DType::f32, {a.ve_table.numel() / (H * D), H * D});
  check_vectors(op, "ve_table", a.ve_table, H * D);
  check_tensor(op, "gate_w", a.gate_w, DType::f32, {H, gate_columns});
  s.d = static_cast<int>(a.n.numel() / N);
  check_tensor(op, "n", a.n, packed.dtype, {N, s.d});
  ASSAY_OP_CHECK(op, s.d >= gate_columns, "n is " + a.n.describe() + ", narrower than the gate's 12 columns");
  return s;
}

}  // namespace assay::cuda
