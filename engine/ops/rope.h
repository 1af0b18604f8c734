// QK-norm + RoPE in place on the packed projection, alone or with the projection itself, with nanochat's gated value
// embedding.
#pragma once

#include "engine/ops/quantize.h"
#include "engine/ops/tensor.h"

namespace assay {

// qkv [N, 3, H, D], N = B*T, position = row % T. Per head of q and k: y = rope(x), then y * rstd(y) (rms_eps).
// rope rotates pairs (j, j + D/2) by angle position * base^(-2j/D): y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos.
// cos, sin f32 [T, D/2] (f64 for f64): see rope_table.
// Value embedding (if ve_table): v[h] += 3 * sigmoid(n[:, :12] . gate_w[h]) * ve_table[token][h], gate in FP32.
// One rounding at the store of q, k and v each.
struct QkNormRopeArgs {
  Tensor qkv;  // in and out
  Tensor cos, sin;
  Tensor rstd;  // f32 | f64 [N, 2, H] out
  int64_t T = 0;
  Tensor tokens;    // i32 [N]      (the rest only with value embeddings)
  Tensor ve_table;  // f32 | f64 [V, H*D] master, rounded to qkv.dtype on read
  Tensor n;         // [N, d] normed input of the block
  Tensor gate_w;    // f32 | f64 [H, 12]
};
// The packed projection and QK-norm + RoPE on it: rope.qkv as [N, 3*H*D] = x[N, K] * w[3*H*D, K]^T, rounded to its
// dtype, then qk_norm_rope(rope). With w8 the product is gemm_fp8's, of x8 and w8, otherwise gemm's. On entry qkv may
// hold anything.
struct ProjectQkvArgs {
  Tensor x, w;
  Quantized x8, w8;
  QkNormRopeArgs rope;
};
// dqkv [N, 3, H, D]: gradient of the outputs on entry, of the raw projection on return. qkv as left by the forward.
struct QkNormRopeGradArgs {
  Tensor dqkv, qkv, cos, sin, rstd;
  int64_t T = 0;
  Tensor tokens, ve_table, n, gate_w;
  Tensor ve_table_grad;  // f32 | f64 [V, H*D], accumulated; per token in ascending row order
  Tensor gate_w_grad;    // f32 | f64 [H, 12], accumulated
  Tensor dn;             // [N, d], the gate's contribution is added to its first 12 columns
  // Optional, tensorwise: quantize's codes of the dqkv on return, [N, 3*H*D] and transposed [3*H*D, N], with this
  // delayed scale; `calibrate` as in QuantizeArgs. With both of them dqkv itself is worth nothing on return.
  Quantized dqkv8, dqkv8t;
  DelayedScale dqkv8_scale;
  bool calibrate = false;
};
// Fill cos, sin [T, D/2] for a base; computed in double.
void rope_table(double base, Tensor cos, Tensor sin);

namespace cpu {
void qk_norm_rope(const QkNormRopeArgs&);
void project_qkv(const ProjectQkvArgs&);
void qk_norm_rope_grad(const QkNormRopeGradArgs&);
}  // namespace cpu
}  // namespace assay
