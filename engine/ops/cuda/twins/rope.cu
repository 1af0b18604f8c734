// QK-norm + RoPE in place. Bytes per element of q and k: 2 in, 2 out; with value embeddings also v, and 4 of the table.
#include "engine/ops/cuda/rope.cuh"

#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

template <class S>
struct Rope {
  S* qkv;
  const float *cos, *sin;
  float* rstd;
  const int32_t* tokens;  // from here on: null without value embeddings
  const float* ve_table;
  const S* n;
  const float* gate_w;
};

template <class L, class S>
__device__ __forceinline__ void rotate_and_norm(S* x, const float (&cos)[vec], const float (&sin)[vec], bool live,
                                                float* rstd_out) {
  const Packed<S> x1 = load_or_zero(x + L::column(), live), x2 = load_or_zero(x + L::column() + L::D / 2, live);
  float y1[vec], y2[vec], sum = 0;
#pragma unroll
  for (int i = 0; i < vec; ++i) {
    y1[i] = x1.get(i) * cos[i] + x2.get(i) * sin[i];
    y2[i] = -x1.get(i) * sin[i] + x2.get(i) * cos[i];
    sum += y1[i] * y1[i] + y2[i] * y2[i];
  }
  const float rstd = 1.0f / sqrtf(warp_sum<L::lanes>(sum) / static_cast<float>(L::D) + static_cast<float>(rms_eps));
#pragma unroll
  for (int i = 0; i < vec; ++i) {
    y1[i] *= rstd;
    y2[i] *= rstd;
  }
  if (!live) return;
  store(x + L::column(), y1);
  store(x + L::column() + L::D / 2, y2);
  if (L::column() == 0) *rstd_out = rstd;
}

// v[h] += gate * ve[token][h]
template <class L, class S>
__device__ __forceinline__ void add_value_embedding(const Rope<S>& a, const RopeShape& s, int64_t row, int h) {
  const float gate = 3.0f * sigmoid(gate_logit(a.n + row * s.d, a.gate_w + h * gate_columns));
  const float* ve = a.ve_table + (static_cast<int64_t>(a.tokens[row]) * s.H + h) * L::D + L::column();
  S* v = a.qkv + ((row * 3 + 2) * s.H + h) * L::D + L::column();
  Packed<S> old[2];
  Packed<float> add[2];
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    old[part] = load(v + part * L::D / 2);
    add[part] = load(ve + part * L::D / 2);
  }
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    float out[vec];
#pragma unroll
    for (int i = 0; i < vec; ++i) out[i] = old[part].get(i) + gate * round_to<S>(add[part].get(i));
    store(v + part * L::D / 2, out);
  }
}

template <class L, class S>
__device__ __forceinline__ void add_value_embeddings(const Rope<S>& a, const RopeShape& s, int64_t row) {
  for (int h = L::head(); h < s.H; h += L::heads_at_once) add_value_embedding<L>(a, s, row, h);
}

__device__ __forceinline__ int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
}

template <class L, class S>
__global__ __launch_bounds__(256) void value_embedding_kernel(Rope<S> a, RopeShape s) {
  if (const int64_t row = row_of_warp(); row < s.N) add_value_embeddings<L>(a, s, row);
}

template <class L, class S>
__global__ __launch_bounds__(256) void rope_kernel(Rope<S> a, RopeShape s) {
  const int64_t row = row_of_warp();
  if (row >= s.N) return;
  S* const base = a.qkv + row * 3 * s.H * L::D;
  const int64_t at = row % s.T * (L::D / 2) + L::column();
  float cos[vec], sin[vec];
  unpack(load(a.cos + at), cos);
  unpack(load(a.sin + at), sin);
#pragma unroll 2
  for (int first = 0; first < 2 * s.H; first += L::heads_at_once) {
    const int h = first + L::head();
    rotate_and_norm<L>(base + h * L::D, cos, sin, h < 2 * s.H, a.rstd + row * 2 * s.H + h);
  }
  if (a.ve_table != nullptr) add_value_embeddings<L>(a, s, row);
}

template <class S>
Rope<S> pointers(const QkNormRopeArgs& a) {
  return {a.qkv.as<S>(),          a.cos.as<float>(),      a.sin.as<float>(), a.rstd.as<float>(),
          a.tokens.as<int32_t>(), a.ve_table.as<float>(), a.n.as<S>(),       a.gate_w.as<float>()};
}

}  // namespace

void qk_norm_rope(cudaStream_t stream, const QkNormRopeArgs& a, const Tiling& tiling) {
  const char* op = "qk_norm_rope";
  const RopeShape s = check_rope(op, a, a.qkv);
  dispatch(op, a.qkv.dtype, [&]<class S>(S) {
    dispatch_head(op, a.qkv, [&]<class L>(L) {
      rope_kernel<L, S><<<ceil_div(s.N, tiling.rope_warps), tiling.rope_warps * 32, 0, stream>>>(pointers<S>(a), s);
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.qkv.describe());
}

void add_value_embeddings(cudaStream_t stream, const QkNormRopeArgs& a, const Tiling& tiling) {
  const char* op = "add_value_embeddings";
  const RopeShape s = check_rope(op, a, a.qkv);
  using L = HeadLayout<8>;
  ASSAY_OP_CHECK(op, a.ve_table && a.qkv.dtype == DType::bf16 && a.qkv.dim(3) == L::D,
                 "takes bf16 heads of 128 and value embeddings, got " + a.qkv.describe());
  value_embedding_kernel<L, bf16>
      <<<ceil_div(s.N, tiling.rope_warps), tiling.rope_warps * 32, 0, stream>>>(pointers<bf16>(a), s);
  ASSAY_CUDA_LAUNCHED(op, a.qkv.describe());
}

}  // namespace assay::cuda
