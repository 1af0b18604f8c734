// The end of a mixture-of-experts block's backward. Bytes per element: k rows of dxg, dn_shared, n, dx in (2 each), dx
// out, + 1 for each FP8 copy, also of n transposed. bf16 rows of up to 768 columns and up to 8 experts (tile_kernel): n
// serves the router's matrix from shared memory. Other shapes (row_kernel) read it once more.
#include <cfloat>

#include "engine/ops/cuda/fp8_tile.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/router_weight.h"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

static_assert(cuda_limits[RunSize::top_k].most <= 32, "one lane each");

template <class S>
struct MoeNormGrad {
  const S* dxg;
  const int32_t* slot;
  const S* dn_shared;
  const float* gate_grad;
  const int32_t* picks;
  const float *probs, *weights;
  const S* n;
  const float *rstd, *router_w;
  S* dx;
  float* dlogits;  // row_kernel: [N, k] out
  int64_t N;
  int d, E, k;
};

// What lane j of a warp knows of pick j of its row.
struct Pick {
  int32_t slot = 0, expert = 0;
  float dlogit = 0;
};

// In every warp of a row; the sums are in the order of the picks.
template <class S>
__device__ __forceinline__ Pick logit_grad(const MoeNormGrad<S>& a, int64_t row, bool live, int k) {
  const int lane = threadIdx.x % 32;
  const int64_t at = row * k + lane;
  Pick pick;
  float p = 0, w = 0, dw = 0;
  if (live && lane < k) {
    pick.slot = a.slot[at];
    pick.expert = a.picks[at];
    p = a.probs[at], w = a.weights[at];
    dw = a.gate_grad[pick.slot];
  }
  float sum = 0, mean = 0;
  for (int j = 0; j < k; ++j) {
    sum += __shfl_sync(0xFFFFFFFFu, p, j);
    mean += __shfl_sync(0xFFFFFFFFu, dw * w, j);
  }
  if (sum < FLT_MIN) sum = FLT_MIN;
  pick.dlogit = (dw - mean) / sum * p * (1.0f - p);
  return pick;
}

// One row: n as it lies in memory and the new dx, rounded. picks: k if known at compile time, so that all reads are in
// flight together, else 0. Columns beyond d, and rows that do not exist, come out as zeros.
template <int picks, class L, class S>
__device__ __forceinline__ Pick grad_row(const MoeNormGrad<S>& a, int64_t row, bool live, Packed<S> (&n)[L::chunks],
                                         Packed<S> (&dx)[L::chunks]) {
  const int k = picks > 0 ? picks : a.k;
  constexpr int unrolled = picks > 0 ? picks : 1;
  Packed<S> shared[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    const bool valid = live && L::column(c) < a.d;
    const int64_t at = row * a.d + L::column(c);
    n[c] = load_or_zero(a.n + at, valid);
    dx[c] = load_or_zero(a.dx + at, valid);
    shared[c] = load_or_zero(a.dn_shared + at, valid);
  }
  const float rstd = live ? a.rstd[row] : 0.0f;
  const Pick pick = logit_grad(a, row, live, k);
  float dn[L::chunks][vec] = {}, router[L::chunks][vec] = {};
#pragma unroll unrolled
  for (int j = 0; j < k; ++j) {
    const int64_t from = __shfl_sync(0xFFFFFFFFu, pick.slot, j), expert = __shfl_sync(0xFFFFFFFFu, pick.expert, j);
    const float dlogit = __shfl_sync(0xFFFFFFFFu, pick.dlogit, j);
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      const bool valid = live && L::column(c) < a.d;
      const Packed<S> routed = load_or_zero(a.dxg + from * a.d + L::column(c), valid);
      const Packed<float> weight = load_or_zero(a.router_w + expert * a.d + L::column(c), valid);
#pragma unroll
      for (int i = 0; i < vec; ++i) {
        dn[c][i] += routed.get(i);
        router[c][i] += dlogit * weight.get(i);
      }
    }
  }
  float dot = 0;
#pragma unroll
  for (int c = 0; c < L::chunks; ++c)
#pragma unroll
    for (int i = 0; i < vec; ++i) {
      dn[c][i] = dn[c][i] + shared[c].get(i) + router[c][i];
      dot += dn[c][i] * n[c].get(i);
    }
  const float mean = L::sum(dot) / static_cast<float>(a.d);
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) {
    float out[vec];
#pragma unroll
    for (int i = 0; i < vec; ++i) out[i] = dx[c].get(i) + rstd * (dn[c][i] - n[c].get(i) * mean);
    dx[c] = pack<S>(out);
    if (live && L::column(c) < a.d) store(a.dx + row * a.d + L::column(c), dx[c]);
  }
  return pick;
}

template <int picks, class L, class S>
__global__ __launch_bounds__(128) void row_kernel(MoeNormGrad<S> a) {
  const int64_t row = L::row();
  const bool live = row < a.N;
  Packed<S> n[L::chunks], dx[L::chunks];
  const Pick pick = grad_row<picks, L>(a, row, live, n, dx);
  if (live && L::lane() < a.k) a.dlogits[row * a.k + L::lane()] = pick.dlogit;
}

// --------------------------------------------------------------------------------------------------------------- tiles

constexpr int tile_rows = 32, tile_threads = 256, few = 8;
constexpr int tile_blocks = 264;  // 2 per SM of an H100; part of the result, as it fixes the order of sums
constexpr int quad = 4;           // columns of the router's matrix that a thread sums, for all experts
constexpr int max_columns = 768;  // a thread for each four of them
static_assert(max_columns / quad <= tile_threads);

using Tile = CodeTile<tile_rows>;

// Shared memory: n [32, d] bf16; dlogits [32, 8] f32; the codes of dx and of n, if they are wanted transposed.
struct TileMemory {
  bf16* n;
  float* dlogits;
  uint32_t *codes, *n_codes;
  __device__ __forceinline__ TileMemory(std::byte* memory, int d, bool transposed)
      : n(reinterpret_cast<bf16*>(memory)),
        dlogits(reinterpret_cast<float*>(memory + tile_rows * d * 2)),
        codes(reinterpret_cast<uint32_t*>(dlogits + tile_rows * few)),
        n_codes(codes + (transposed ? Tile::words(d) : 0)) {}
  static int bytes(int d, bool transposed, bool n_transposed) {
    return tile_rows * (d * 2 + few * 4) +
           (static_cast<int>(transposed) + static_cast<int>(n_transposed)) * Tile::words(d) * 4;
  }
};

// The tile's rows: dx and its codes; n and dlogits to shared memory. A warp takes every eighth row.
template <int picks, class L, class F>
__device__ __forceinline__ void tile_grads(const MoeNormGrad<bf16>& a, const ProducedFp8& q,
                                           const TransposedNorm& normed, const TileMemory& m, int64_t first,
                                           float inverse, int& amax) {
  const int lane = threadIdx.x % 32;
  for (int r = threadIdx.x / 32; r < tile_rows; r += tile_threads / 32) {
    const int64_t row = first + r;
    const bool live = row < a.N;
    Packed<bf16> n[L::chunks], dx[L::chunks];
    const Pick pick = grad_row<picks, L>(a, row, live, n, dx);
    float mine = 0;  // of expert `lane`
    for (int j = 0; j < a.k; ++j) {
      const float dlogit = __shfl_sync(0xFFFFFFFFu, pick.dlogit, j);
      if (__shfl_sync(0xFFFFFFFFu, pick.expert, j) == lane) mine = dlogit;
    }
    if (lane < few) m.dlogits[r * few + lane] = live ? mine : 0.0f;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      const int column = L::column(c);
      if (column >= a.d) break;
      store(m.n + r * a.d + column, n[c]);
      if constexpr (!std::is_void_v<F>) {
        float x[vec];
        unpack(dx[c], x);
        amax = amax_of(x, amax);
        const uint2 code = encode<F>(x, inverse);
        if (q.codes != nullptr && live) *reinterpret_cast<uint2*>(q.codes + row * a.d + column) = code;
        if (q.transposed != nullptr) Tile::put(m.codes, a.d, r, column, code);
        if (normed.codes == nullptr) continue;
        unpack(n[c], x);
        Tile::put(m.n_codes, a.d, r, column, encode<E4m3>(x, 1.0f / normed.scale));
      }
    }
  }
}

// sum[e] += dlogit[row, e] * n[row] over the tile, for the thread's four columns.
__device__ __forceinline__ void tile_router(const TileMemory& m, int d, float (&sum)[few][quad]) {
  const int column = threadIdx.x * quad;
  if (column >= d) return;
#pragma unroll 4
  for (int r = 0; r < tile_rows; ++r) {
    const uint2 word = *reinterpret_cast<const uint2*>(m.n + r * d + column);
    const float n[quad] = {__uint_as_float(word.x << 16), __uint_as_float(word.x & 0xFFFF0000u),
                           __uint_as_float(word.y << 16), __uint_as_float(word.y & 0xFFFF0000u)};
    float g[few];
    *reinterpret_cast<float4*>(g) = *reinterpret_cast<const float4*>(m.dlogits + r * few);
    *reinterpret_cast<float4*>(g + 4) = *reinterpret_cast<const float4*>(m.dlogits + r * few + 4);
#pragma unroll
    for (int e = 0; e < few; ++e)
#pragma unroll
      for (int i = 0; i < quad; ++i) sum[e][i] = fmaf(g[e], n[i], sum[e][i]);
  }
}

// F: the format of the codes, or void for none.
template <int picks, class L, class F>
__global__ __launch_bounds__(tile_threads, 2) void tile_kernel(MoeNormGrad<bf16> a, ProducedFp8 q,
                                                               TransposedNorm normed, float* parts) {
  constexpr bool fp8 = !std::is_void_v<F>;
  extern __shared__ __align__(16) std::byte memory[];
  const TileMemory m(memory, a.d, q.transposed != nullptr);
  float sum[few][quad] = {};
  int amax = 0;
  const float inverse = fp8 ? 1.0f / q.scale() : 1.0f;
  if (fp8 && blockIdx.x == 0 && threadIdx.x == 0) {
    q.store_scales();
    normed.store_scale();
  }
  const int64_t stride = static_cast<int64_t>(gridDim.x) * tile_rows;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * tile_rows; first < a.N; first += stride) {
    tile_grads<picks, L, F>(a, q, normed, m, first, inverse, amax);
    __syncthreads();
    tile_router(m, a.d, sum);
    if (fp8 && q.transposed != nullptr) Tile::write(m.codes, a.d, q.transposed, a.N, first);
    if (fp8 && normed.codes != nullptr) Tile::write(m.n_codes, a.d, normed.codes, a.N, first);
    __syncthreads();
  }
  const int column = threadIdx.x * quad;
  float* part = parts + static_cast<int64_t>(blockIdx.x) * a.E * a.d;
  if (column < a.d)
#pragma unroll
    for (int e = 0; e < few; ++e)
      if (e < a.E)
        *reinterpret_cast<float4*>(part + e * a.d + column) = make_float4(sum[e][0], sum[e][1], sum[e][2], sum[e][3]);
  if constexpr (fp8) {
    amax = warp_max(amax);
    if (threadIdx.x % 32 == 0) raise(reinterpret_cast<int*>(q.delayed.amax), amax);
  }
}

// ----------------------------------------------------------------------------------------------------------- launching

template <class S>
MoeNormGrad<S> kernel_args(const MoeNormGradArgs& a) {
  return {a.dxg.as<S>(),
          a.slot.as<int32_t>(),
          a.dn_shared.as<S>(),
          a.gate_grad.as<float>(),
          a.picks.as<int32_t>(),
          a.probs.as<float>(),
          a.weights.as<float>(),
          a.n.as<S>(),
          a.rstd.as<float>(),
          a.router_w.as<float>(),
          a.dx.as<S>(),
          nullptr,
          a.dx.dim(0),
          static_cast<int>(a.dx.dim(1)),
          static_cast<int>(a.router_w.dim(0)),
          static_cast<int>(a.slot.dim(1))};
}

template <int picks, class L, class F>
void launch_tiles(cudaStream_t stream, const MoeNormGradArgs& a, const ProducedFp8& codes, const TransposedNorm& normed,
                  Workspace workspace) {
  const char* op = "moe_norm_grad";
  const MoeNormGrad<bf16> k = kernel_args<bf16>(a);
  const int64_t blocks = std::min<int64_t>(tile_blocks, ceil_div(k.N, tile_rows));
  float* parts = workspace.take<float>(op, blocks * k.E * k.d);
  const auto kernel = tile_kernel<picks, L, F>;
  ASSAY_CUDA_CHECK(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            TileMemory::bytes(max_columns, true, true)));
  const int bytes = TileMemory::bytes(k.d, codes.transposed != nullptr, normed.codes != nullptr);
  kernel<<<blocks, tile_threads, bytes, stream>>>(k, codes, normed, parts);
  ASSAY_CUDA_LAUNCHED(op, a.dx.describe());
  sum_router_parts(stream, parts, blocks, k.E * k.d, a.router_w_grad.as<float>());
}

template <class F>
void dispatch_tiles(cudaStream_t stream, const MoeNormGradArgs& a, const ProducedFp8& codes,
                    const TransposedNorm& normed, Workspace workspace) {
  if (a.dx.dim(1) <= 256) return launch_tiles<0, RowLayout<32, 1>, F>(stream, a, codes, normed, workspace);
  if (a.slot.dim(1) == 2) return launch_tiles<2, RowLayout<32, 3>, F>(stream, a, codes, normed, workspace);
  launch_tiles<0, RowLayout<32, 3>, F>(stream, a, codes, normed, workspace);
}

void launch_rows(cudaStream_t stream, const MoeNormGradArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "moe_norm_grad";
  const int64_t N = a.dx.dim(0), d = a.dx.dim(1), E = a.router_w.dim(0), k = a.slot.dim(1);
  float* dlogits = workspace.take<float>(op, N * k);
  dispatch(op, a.dx.dtype, [&]<class S>(S) {
    MoeNormGrad<S> args = kernel_args<S>(a);
    args.dlogits = dlogits;
    dispatch_row(op, a.dx, d, tiling.by_width,
                 [&]<class L>(L) { row_kernel<0, L, S><<<ceil_div(N, L::rows_per_block), 128, 0, stream>>>(args); });
  });
  ASSAY_CUDA_LAUNCHED(op, a.dx.describe());
  router_weight_grad(
      stream,
      {a.n, a.picks.as<int32_t>(), dlogits, static_cast<int>(E), static_cast<int>(k), a.router_w_grad.as<float>()},
      workspace);
}

void check(const char* op, const MoeNormGradArgs& a, int64_t N, int64_t d) {
  const int64_t E = a.router_w.dim(0), k = a.slot.dim(1), R = a.dxg.dim(0);
  ASSAY_CUDA_TAKES(op, cuda_limits, experts, E);
  ASSAY_CUDA_TAKES(op, cuda_limits, top_k, k);
  ASSAY_OP_CHECK(op, k >= 1 && k <= E, "top_k " + std::to_string(k) + " of " + std::to_string(E) + " experts");
  check_tensor(op, "dxg", a.dxg, a.dx.dtype, {R, d});
  check_tensor(op, "slot", a.slot, DType::i32, {N, k});
  check_tensor(op, "dn_shared", a.dn_shared, a.dx.dtype, {N, d});
  check_tensor(op, "gate_grad", a.gate_grad, DType::f32, {R});
  check_tensor(op, "picks", a.picks, DType::i32, {N, k});
  check_tensor(op, "probs", a.probs, DType::f32, {N, k});
  check_tensor(op, "weights", a.weights, DType::f32, {N, k});
  check_tensor(op, "n", a.n, a.dx.dtype, {N, d});
  check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  check_tensor(op, "router_w", a.router_w, DType::f32, {E, d});
  check_tensor(op, "router_w_grad", a.router_w_grad, DType::f32, {E, d});
  for (const Tensor* t : {&a.dxg, &a.dn_shared, &a.n, &a.router_w, &a.router_w_grad, &a.dx})
    check_vectors(op, "a matrix", *t, d);
}

}  // namespace

void moe_norm_grad(cudaStream_t stream, const MoeNormGradArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "moe_norm_grad";
  ASSAY_OP_CHECK(op, a.dxg.rank == 2 && a.slot.rank == 2 && a.router_w.rank == 2 && a.dx.rank == 2,
                 "dxg " + a.dxg.describe() + ", slot " + a.slot.describe() + ", router_w " + a.router_w.describe() +
                     ", dx " + a.dx.describe() + ", all of rank 2");
  const int64_t N = a.dx.dim(0), d = a.dx.dim(1);
  check(op, a, N, d);
  const bool tiles = a.dx.dtype == DType::bf16 && d <= max_columns && a.router_w.dim(0) <= few;
  const bool codes = a.dx8 || a.dx8t;
  ProducedFp8 produced;
  TransposedNorm normed;
  const bool normed_too = transposed_norm(op, a.n8t, N, d, &normed);
  if (codes && produced_fp8(op, a.dx8, a.dx8t, a.dx8_scale, a.calibrate, N, d, &produced) && tiles && normed_too) {
    const DType format = (a.dx8 ? a.dx8 : a.dx8t).codes.dtype;
    return format == DType::fp8_e5m2 ? dispatch_tiles<E5m2>(stream, a, produced, normed, workspace)
                                     : dispatch_tiles<E4m3>(stream, a, produced, normed, workspace);
  }
  tiles ? dispatch_tiles<void>(stream, a, {}, {}, workspace) : launch_rows(stream, a, workspace, tiling);
  if (codes)
    quantize(stream, {.x = a.dx, .out = a.dx8, .transposed = a.dx8t, .delayed = a.dx8_scale, .calibrate = a.calibrate},
             workspace);
  if (a.n8t) quantize(stream, {.x = a.n, .transposed = a.n8t, .static_scale = normed.scale}, workspace);
}

}  // namespace assay::cuda
