// Gradient of QK-norm + RoPE to FP8 codes. Bytes per element of the packed projection: dqkv in (2), qkv of q and k in
// (4/3), 1 out per orientation, and with a BF16 gradient kept 4/3 more. A block works on 64 rows of one head's q, k and
// v, which share the tables of angles.
#include "engine/ops/cuda/rope_grad_fp8.h"

#include "engine/ops/cuda/fp8_tile.cuh"
#include "engine/ops/cuda/rope.cuh"

namespace assay::cuda {
namespace {

using Tile = CodeTile<64>;
constexpr int threads = 128;

struct RopeGradFp8 {
  bf16* dqkv;
  const bf16* qkv;
  const float *cos, *sin, *rstd;
  ProducedFp8 out;
  bool keep;  // dqkv too
};

template <class L>
struct HeadPart {
  Packed<bf16> halves[2];

  __device__ __forceinline__ HeadPart(const bf16* head, bool live) {
    halves[0] = load_or_zero(head + L::column(), live);
    halves[1] = load_or_zero(head + L::column() + L::D / 2, live);
  }
};

// Codes of this thread's two vectors of a head: to memory and to the tile. Returns the greater of amax and theirs.
template <class L, class F>
__device__ __forceinline__ int emit(const RopeGradFp8& a, const HeadPart<L>& g, float inverse, int64_t at, bool live,
                                    uint32_t* tile, int row, int amax) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int column = L::column() + half * (L::D / 2);
    float x[vec];
    unpack(g.halves[half], x);
    amax = amax_of(x, amax);
    const uint2 codes = encode<F>(x, inverse);
    if (live && a.out.codes != nullptr) *reinterpret_cast<uint2*>(a.out.codes + at + column) = codes;
    if (a.out.transposed != nullptr) Tile::put(tile, L::D, row, column, codes);
  }
  return amax;
}

template <class L, class F>
__global__ __launch_bounds__(threads) void rope_grad_fp8_kernel(RopeGradFp8 a, RopeShape s) {
  __shared__ __align__(16) uint32_t tiles[3][Tile::words(L::D)];
  const int64_t first = static_cast<int64_t>(blockIdx.y) * Tile::rows;
  const int h = blockIdx.x;
  const float inverse = 1.0f / a.out.scale();
  int amax = 0;
  for (int r = threadIdx.x / L::lanes; r < Tile::rows; r += threads / L::lanes) {
    const int64_t row = first + r;
    const bool live = row < s.N;
    int64_t at[3];  // the heads' first elements
#pragma unroll
    for (int part = 0; part < 3; ++part) at[part] = ((row * 3 + part) * s.H + h) * L::D;
    const HeadPart<L> dy[3] = {{a.dqkv + at[0], live}, {a.dqkv + at[1], live}, {a.dqkv + at[2], live}};
    const HeadPart<L> y[2] = {{a.qkv + at[0], live}, {a.qkv + at[1], live}};
    const int64_t angle = live ? row % s.T * (L::D / 2) + L::column() : L::column();
    float cos[vec], sin[vec];
    unpack(load(a.cos + angle), cos);
    unpack(load(a.sin + angle), sin);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const float rstd = live ? a.rstd[(row * 2 + part) * s.H + h] : 0.0f;
      float out1[vec], out2[vec];
      rotate_and_norm_grad<L>(dy[part].halves, y[part].halves, cos, sin, rstd, out1, out2);
      HeadPart<L> g = dy[part];
      g.halves[0] = pack<bf16>(out1);
      g.halves[1] = pack<bf16>(out2);
      amax = emit<L, F>(a, g, inverse, at[part], live, tiles[part], r, amax);
      if (!a.keep || !live) continue;
      store(a.dqkv + at[part] + L::column(), g.halves[0]);
      store(a.dqkv + at[part] + L::column() + L::D / 2, g.halves[1]);
    }
    amax = emit<L, F>(a, dy[2], inverse, at[2], live, tiles[2], r, amax);
  }
  amax = block_max<threads / 32>(amax);  // behind its barriers the tiles are whole
  if (threadIdx.x == 0) raise(reinterpret_cast<int*>(a.out.delayed.amax), amax);
  if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) a.out.store_scales();
  if (a.out.transposed == nullptr) return;
#pragma unroll
  for (int part = 0; part < 3; ++part)
    Tile::write(tiles[part], L::D, a.out.transposed + static_cast<int64_t>(part * s.H + h) * L::D * s.N, s.N, first);
}

template <class L>
void launch(cudaStream_t stream, const RopeGradFp8& a, const RopeShape& s, bool e5m2) {
  const dim3 grid(static_cast<unsigned>(s.H), static_cast<unsigned>(ceil_div(s.N, Tile::rows)));
  if (e5m2) {
    rope_grad_fp8_kernel<L, E5m2><<<grid, threads, 0, stream>>>(a, s);
  } else {
    rope_grad_fp8_kernel<L, E4m3><<<grid, threads, 0, stream>>>(a, s);
  }
}

}  // namespace

bool qk_norm_rope_grad_fp8(cudaStream_t stream, const QkNormRopeGradArgs& a) {
  const char* op = "qk_norm_rope_grad";
  const RopeShape s = check_rope(op, a, a.dqkv);
  static_assert(cuda_fp8_limits[RunSize::tokens].most == Tile::rows * 65535ll);
  ASSAY_OP_CHECK(op, s.N <= cuda_fp8_limits[RunSize::tokens].most, refusal(cuda_fp8_limits, RunSize::tokens, s.N));
  const int64_t D = a.dqkv.dim(3);
  RopeGradFp8 k{.dqkv = a.dqkv.as<bf16>(),
                .qkv = a.qkv.as<bf16>(),
                .cos = a.cos.as<float>(),
                .sin = a.sin.as<float>(),
                .rstd = a.rstd.as<float>(),
                .keep = !a.dqkv8 || !a.dqkv8t};
  const bool can = produced_fp8(op, a.dqkv8, a.dqkv8t, a.dqkv8_scale, a.calibrate, s.N, 3 * s.H * D, &k.out);
  if (!can || a.ve_table || a.dqkv.dtype != DType::bf16 || (D != 64 && D != 128)) return false;
  check_tensor(op, "qkv", a.qkv, DType::bf16, {s.N * 3 * s.H, D});
  check_vectors(op, "qkv", a.qkv, D);
  const bool e5m2 = (a.dqkv8 ? a.dqkv8 : a.dqkv8t).codes.dtype == DType::fp8_e5m2;
  if (D == 64) {
    launch<HeadLayout<4>>(stream, k, s, e5m2);
  } else {
    launch<HeadLayout<8>>(stream, k, s, e5m2);
  }
  ASSAY_CUDA_LAUNCHED(op, a.dqkv.describe());
  return true;
}

}  // namespace assay::cuda
