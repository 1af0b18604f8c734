// Gradient of QK-norm + RoPE. Bytes per element of q and k: dqkv and qkv in, dqkv out (2 each). With value embeddings:
// the gates' gradients row by row, then the table's by sorted tokens, both in fixed order.
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rope.cuh"
#include "engine/ops/cuda/rope_grad_fp8.h"
#include "engine/ops/cuda/token_sum.cuh"

namespace assay::cuda {
namespace {

template <class S>
struct RopeGrad {
  S* dqkv;
  const S* qkv;
  const float *cos, *sin, *rstd;
  const int32_t* tokens;  // from here on: null without value embeddings
  const float* ve_table;
  const S* n;
  const float* gate_w;
  S* dn;
  float *gates, *dlogits;  // [N, H] out
};

template <class L, class S>
__device__ __forceinline__ void rotate_and_norm_grad(S* dy, const S* y, const float (&cos)[vec],
                                                     const float (&sin)[vec], bool live, const float* rstd_of) {
  const int c1 = L::column(), c2 = L::column() + L::D / 2;
  const Packed<S> dy_halves[2] = {load_or_zero(dy + c1, live), load_or_zero(dy + c2, live)};
  const Packed<S> y_halves[2] = {load_or_zero(y + c1, live), load_or_zero(y + c2, live)};
  float out1[vec], out2[vec];
  rotate_and_norm_grad<L>(dy_halves, y_halves, cos, sin, live ? *rstd_of : 0.0f, out1, out2);
  if (!live) return;
  store(dy + c1, out1);
  store(dy + c2, out2);
}

// Gate and logit gradient of one head, known to all its lanes.
template <class L, class S>
__device__ __forceinline__ void gate_grad(const RopeGrad<S>& a, const RopeShape& s, int64_t row, int h, bool live) {
  float dot = 0;
  if (live) {
    const S* dv = a.dqkv + ((row * 3 + 2) * s.H + h) * L::D + L::column();
    const float* ve = a.ve_table + (static_cast<int64_t>(a.tokens[row]) * s.H + h) * L::D + L::column();
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const Packed<S> g = load(dv + part * L::D / 2);
      const Packed<float> e = load(ve + part * L::D / 2);
#pragma unroll
      for (int i = 0; i < vec; ++i) dot += g.get(i) * round_to<S>(e.get(i));
    }
  }
  dot = warp_sum<L::lanes>(dot);
  if (!live || L::column() != 0) return;
  const float p = sigmoid(gate_logit(a.n + row * s.d, a.gate_w + h * gate_columns));
  a.gates[row * s.H + h] = 3.0f * p;
  a.dlogits[row * s.H + h] = 3.0f * dot * p * (1.0f - p);
}

template <class L, class S>
__global__ __launch_bounds__(256) void rope_grad_kernel(RopeGrad<S> a, RopeShape s) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= s.N) return;
  const int64_t base = row * 3 * s.H * L::D, at = row % s.T * (L::D / 2) + L::column();
  float cos[vec], sin[vec];
  unpack(load(a.cos + at), cos);
  unpack(load(a.sin + at), sin);
  for (int first = 0; first < 2 * s.H; first += L::heads_at_once) {
    const int h = first + L::head();
    rotate_and_norm_grad<L>(a.dqkv + base + h * L::D, a.qkv + base + h * L::D, cos, sin, h < 2 * s.H,
                            a.rstd + row * 2 * s.H + h);
  }
  if (a.ve_table == nullptr) return;
  for (int first = 0; first < s.H; first += L::heads_at_once)
    gate_grad<L>(a, s, row, first + L::head(), first + L::head() < s.H);
  __syncwarp();  // the row's dlogits are in memory, written by this warp
  const int c = threadIdx.x % 32;
  if (c >= gate_columns) return;
  float dn = 0;
  for (int h = 0; h < s.H; ++h) dn += a.dlogits[row * s.H + h] * a.gate_w[h * gate_columns + c];
  S* to = a.dn + row * s.d + c;
  *to = rounded<S>(to_float(*to) + dn);
}

// gate_w_grad [H, 12] += sum over rows of dlogits[row, h] * n[row, c]: blocks of 64 rows, then the blocks in order.
constexpr int gate_rows = 64;

template <class S>
__global__ __launch_bounds__(128) void gate_partial_kernel(const float* dlogits, const S* n, RopeShape s,
                                                           float* partial) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * gate_rows;
  const int rows = static_cast<int>(min(static_cast<int64_t>(gate_rows), s.N - first));
  for (int i = threadIdx.x; i < s.H * gate_columns; i += 128) {
    const int h = i / gate_columns, c = i % gate_columns;
    float sum = 0;
#pragma unroll 16
    for (int r = 0; r < rows; ++r) sum += dlogits[(first + r) * s.H + h] * to_float(n[(first + r) * s.d + c]);
    partial[static_cast<int64_t>(i) * gridDim.x + blockIdx.x] = sum;
  }
}

__global__ void gate_sum_kernel(const float* partial, int blocks, int count, float* gate_w_grad) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (i >= count) return;
  float sum = 0;

#pragma unroll 8
  for (int b = lane; b < blocks; b += 32) sum += partial[static_cast<int64_t>(i) * blocks + b];
  sum = warp_sum(sum);
  if (lane == 0) gate_w_grad[i] += sum;
}

// gate[row, h] * dv[row, h]
template <class S>
struct GatedRow {
  const S* dqkv;
  const float* gates;
  int H, D;
  struct Raw {
    Packed<S> dv;
    float gate;
  };
  __device__ __forceinline__ Raw load(int32_t row, int column) const {
    const int64_t at = (static_cast<int64_t>(row) * 3 + 2) * H * D + column;
    return {cuda::load(dqkv + at), gates[static_cast<int64_t>(row) * H + column / D]};
  }
  __device__ __forceinline__ void get(const Raw& raw, float (&x)[vec]) const {
#pragma unroll
    for (int i = 0; i < vec; ++i) x[i] = raw.gate * raw.dv.get(i);
  }
};

template <class S>
void value_embedding_grad(cudaStream_t stream, const QkNormRopeGradArgs& a, const RopeShape& s, const RopeGrad<S>& k,
                          Workspace& workspace) {
  const char* op = "qk_norm_rope_grad";
  const int64_t blocks = ceil_div(s.N, gate_rows), D = a.dqkv.dim(3);
  const int count = s.H * gate_columns;
  float* partial = workspace.take<float>(op, blocks * count);
  gate_partial_kernel<S><<<blocks, 128, 0, stream>>>(k.dlogits, k.n, s, partial);
  ASSAY_CUDA_LAUNCHED(op, a.dqkv.describe());
  gate_sum_kernel<<<ceil_div(count, 8), 256, 0, stream>>>(partial, static_cast<int>(blocks), count,
                                                          a.gate_w_grad.as<float>());
  ASSAY_CUDA_LAUNCHED(op, a.dqkv.describe());
  const int64_t vocabulary = a.ve_table.numel() / (s.H * D);
  const SortedTokens sorted = sort_tokens(op, stream, k.tokens, s.N, vocabulary, workspace);
  launch_token_sum(op, stream, sorted, s.N, s.H * D, a.ve_table_grad,
                   GatedRow<S>{k.dqkv, k.gates, s.H, static_cast<int>(D)}, workspace);
}

}  // namespace

void qk_norm_rope_grad(cudaStream_t stream, const QkNormRopeGradArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "qk_norm_rope_grad";
  const RopeShape s = check_rope(op, a, a.dqkv);
  const int64_t D = a.dqkv.dim(3);
  check_tensor(op, "qkv", a.qkv, a.dqkv.dtype, {s.N * 3 * s.H, D});
  check_vectors(op, "qkv", a.qkv, D);
  if (a.ve_table) {
    check_tensor(op, "ve_table_grad", a.ve_table_grad, DType::f32, {a.ve_table.numel() / (s.H * D), s.H * D});
    check_tensor(op, "gate_w_grad", a.gate_w_grad, DType::f32, {s.H, gate_columns});
    check_tensor(op, "dn", a.dn, a.dqkv.dtype, {s.N, s.d});
  }
  const bool codes = a.dqkv8 || a.dqkv8t;
  if (codes && qk_norm_rope_grad_fp8(stream, a)) return;
  dispatch(op, a.dqkv.dtype, [&]<class S>(S) {
    RopeGrad<S> k{a.dqkv.as<S>(),
                  a.qkv.as<S>(),
                  a.cos.as<float>(),
                  a.sin.as<float>(),
                  a.rstd.as<float>(),
                  a.tokens.as<int32_t>(),
                  a.ve_table.as<float>(),
                  a.n.as<S>(),
                  a.gate_w.as<float>(),
                  a.dn.as<S>(),
                  nullptr,
                  nullptr};
    if (a.ve_table) {
      k.gates = workspace.take<float>(op, s.N * s.H);
      k.dlogits = workspace.take<float>(op, s.N * s.H);
    }
    dispatch_head(op, a.dqkv, [&]<class L>(L) {
      rope_grad_kernel<L, S><<<ceil_div(s.N, tiling.rope_grad_warps), tiling.rope_grad_warps * 32, 0, stream>>>(k, s);
    });
    ASSAY_CUDA_LAUNCHED(op, a.dqkv.describe());
    if (a.ve_table) value_embedding_grad<S>(stream, a, s, k, workspace);
  });
  if (codes)
    quantize(stream,
             {.x = a.dqkv.view({s.N, 3 * s.H * D}),
              .out = a.dqkv8,
              .transposed = a.dqkv8t,
              .delayed = a.dqkv8_scale,
              .calibrate = a.calibrate},
             workspace);
}

}  // namespace assay::cuda
