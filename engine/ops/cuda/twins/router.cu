// norm + router. A warp takes several rows, so that each router weight it loads serves all of them; the rows stay in
// registers. Bytes per element: 2 in, 2 out (+ 1 for FP8); the router's matrix comes from L1 and L2.
#include <cfloat>

#include "base/limits.h"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

constexpr int max_experts = limits::experts;  // that there is room for
static_assert(cuda_limits[RunSize::experts].most <= max_experts);
constexpr int group = 8;       // experts whose dot products run together
constexpr int most_warps = 4;  // of a block

template <class S>
struct NormRoute {
  const S* x;
  const float *router_w, *bias;
  S* n;
  float* rstd;
  NormedFp8 n8;
  int32_t* picks;
  float *probs, *weights;
  int32_t* counts;
  int64_t N;
  int d, E, k;
};

// Sums v[i] over the warp for count (a power of two up to 32) values at once: the lanes exchange halves, so it takes
// fewer steps than a sum per value. Lane l ends with the sum of value l / (32 / count).
template <int count>
__device__ __forceinline__ float fold_sums(float (&v)[count]) {
#pragma unroll
  for (int offset = 16, n = count; offset > 0; offset /= 2) {
    if (n == 1) {
      v[0] += __shfl_xor_sync(0xFFFFFFFFu, v[0], offset);
      continue;
    }
    n /= 2;
    const bool upper = (threadIdx.x & offset) != 0;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
      if (i >= n) break;
      const float give = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
      v[i] = keep + __shfl_xor_sync(0xFFFFFFFFu, give, offset);
    }
  }
  return v[0];
}

// A lane holds columns 8l .. 8l + 7 of each chunk of 256. Here it gets 4l .. 4l + 3 and 128 + 4l .. 128 + 4l + 3
// instead: then the lanes of a warp read 512 bytes of FP32 weights without gaps, in half the shared-memory cycles.
template <class S>
__device__ __forceinline__ Packed<S> interleave(const Packed<S>& mine) {
  constexpr int half = sizeof(S);  // 32-bit words of four elements
  const uint32_t* from = &mine.words[0].x;
  Packed<S> result;
  uint32_t* to = &result.words[0].x;
  const int source = threadIdx.x % 32 / 2;
  const bool upper = threadIdx.x % 2 == 1;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
#pragma unroll
    for (int w = 0; w < half; ++w) {
      const uint32_t low = __shfl_sync(0xFFFFFFFFu, from[w], part * 16 + source);
      const uint32_t high = __shfl_sync(0xFFFFFFFFu, from[half + w], part * 16 + source);
      to[part * half + w] = upper ? high : low;
    }
  }
  return result;
}

// Probabilities of `rows` rows, interleaved, for all experts into p [rows, E].
template <int rows, class L, class S>
__device__ __forceinline__ void route_probs(const NormRoute<S>& a, const Packed<S> (&n)[rows][L::chunks], float* p) {
  const int lane = threadIdx.x % 32;
  for (int first = 0; first < a.E; first += group) {
    float dots[rows * group] = {};
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int column = c * 256 + part * 128 + lane * 4;
#pragma unroll
        for (int e = 0; e < group; ++e) {
          const bool live = column < a.d && first + e < a.E;
          const float* from = a.router_w + static_cast<int64_t>(first + e) * a.d + column;
          const float4 w = live ? *reinterpret_cast<const float4*>(from) : float4{0, 0, 0, 0};
#pragma unroll
          for (int r = 0; r < rows; ++r) {
            float& dot = dots[r * group + e];
            dot = fmaf(n[r][c].get(part * 4), w.x, dot);
            dot = fmaf(n[r][c].get(part * 4 + 1), w.y, dot);
            dot = fmaf(n[r][c].get(part * 4 + 2), w.z, dot);
            dot = fmaf(n[r][c].get(part * 4 + 3), w.w, dot);
          }
        }
      }
    }
    const float logit = fold_sums(dots);
    constexpr int lanes_per_value = 32 / (rows * group);
    const int value = lane / lanes_per_value, e = first + value % group;
    if (lane % lanes_per_value == 0 && e < a.E) p[value / group * a.E + e] = 1.0f / (1.0f + expf(-logit));
  }
}

// The k largest p + bias of a row by eight lanes, ties to the lower expert; a NaN is never larger than a number.
template <class S>
__device__ __forceinline__ void route_picks(const NormRoute<S>& a, const float* p, int64_t row, bool live,
                                            int32_t* block_counts) {
  const int lane = threadIdx.x % group;
  uint32_t taken = 0;  // of this lane's experts lane, lane + 8, ...
  float sum = 0;
  for (int j = 0; j < a.k; ++j) {
    float best = -INFINITY;
    int pick = max_experts;
    for (int e = lane, bit = 0; e < a.E; e += group, ++bit) {
      if ((taken >> bit & 1) != 0) continue;
      float score = p[e] + a.bias[e];
      if (isnan(score)) score = -INFINITY;
      if (pick == max_experts || score > best) best = score, pick = e;
    }
#pragma unroll
    for (int offset = group / 2; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, best, offset);
      const int other_pick = __shfl_xor_sync(0xFFFFFFFFu, pick, offset);
      if (other > best || (other == best && other_pick < pick)) best = other, pick = other_pick;
    }
    if (pick % group == lane) taken |= 1u << pick / group;
    sum += p[pick];
    if (!live || lane != 0) continue;
    a.picks[row * a.k + j] = pick;
    a.probs[row * a.k + j] = p[pick];
    atomicAdd(&block_counts[pick], 1);
  }
  if (sum < FLT_MIN) sum = FLT_MIN;
  __syncwarp();
  if (!live) return;
  for (int j = lane; j < a.k; j += group) a.weights[row * a.k + j] = a.probs[row * a.k + j] / sum;
}

template <int rows, class L, class S>
__global__ __launch_bounds__(most_warps * 32, L::chunks > 3 ? 1
                                              : rows > 2    ? 3
                                                            : 5) void norm_route_kernel(NormRoute<S> a) {
  extern __shared__ float probs[];  // [warps of the block, rows, E]
  __shared__ int32_t block_counts[max_experts];
  for (int e = threadIdx.x; e < a.E; e += blockDim.x) block_counts[e] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp) * rows;
  Packed<S> n[rows][L::chunks];
#pragma unroll
  for (int r = 0; r < rows; ++r)
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
      n[r][c] = load_or_zero(a.x + (first + r) * a.d + L::column(c), first + r < a.N && L::column(c) < a.d);
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const bool live = first + r < a.N;
    const float rstd = norm_row<L>(n[r], a.d);
    if (live && lane == 0) a.rstd[first + r] = rstd;
#pragma unroll
    for (int c = 0; c < L::chunks; ++c)
      if (live && L::column(c) < a.d) store(a.n + (first + r) * a.d + L::column(c), n[r][c]);
    if (a.n8.codes == nullptr) continue;
    if (a.n8.e5m2) {
      store_fp8_row<E5m2, L>(a.n8, n[r], first + r, a.d, live);
    } else {
      store_fp8_row<E4m3, L>(a.n8, n[r], first + r, a.d, live);
    }
  }
#pragma unroll
  for (int r = 0; r < rows; ++r)
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) n[r][c] = interleave(n[r][c]);
  float* p = probs + warp * rows * a.E;
  route_probs<rows, L>(a, n, p);
  __syncwarp();
  const int r = lane / group;  // eight lanes pick for one row; those beyond the rows repeat the last, without effect
  route_picks(a, p + min(r, rows - 1) * a.E, first + r, r < rows && first + r < a.N, block_counts);
  __syncthreads();
  for (int e = threadIdx.x; e < a.E; e += blockDim.x)
    if (block_counts[e] != 0) atomicAdd(&a.counts[e], block_counts[e]);
}

// Calls f(rows of a warp, RowLayout<32, ...>{}): route_rows says how many. A row is summed by the same lanes in the
// same order however many there are.
template <class S, class F>
void dispatch_rows_per_warp(const char* op, const Tensor& x, int64_t d, int64_t E, int wanted, F&& f) {
  constexpr bool bf16_rows = sizeof(S) == 2;
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 4> four;
  const int rows = route_rows(d, E, bf16_rows, wanted);
  if (rows == 0) fail_op(op, __FILE__, __LINE__, x.describe() + " has rows that are too long for the router");
  if (d <= 256) return rows == 1 ? f(one, RowLayout<32, 1>{}) : f(two, RowLayout<32, 1>{});
  if constexpr (bf16_rows)
    if (d <= 768 && rows > 2) return f(four, RowLayout<32, 3>{});
  if (d <= 768) return rows == 1 ? f(one, RowLayout<32, 3>{}) : f(two, RowLayout<32, 3>{});
  if constexpr (bf16_rows) {
    if (d <= 1536 && rows == 2) return f(two, RowLayout<32, 6>{});
    if (d > 1536) return f(one, RowLayout<32, 16>{});
  }
  f(one, RowLayout<32, 6>{});
}

__global__ void bias_kernel(float* bias, const int32_t* total, int E, float rate, const int32_t* skip) {
  if (skip != nullptr && *skip != 0) return;
  long long sum = 0;
  for (int e = 0; e < E; ++e) sum += total[e];
  for (int e = threadIdx.x; e < E; e += blockDim.x) {
    const long long excess = static_cast<long long>(total[e]) * E - sum;  // sign(mean - total_e), exactly
    bias[e] += rate * static_cast<float>((excess < 0) - (excess > 0));
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void norm_route(cudaStream_t stream, const NormRouteArgs& a, const Tiling& tiling) {
  const char* op = "norm_route";
  ASSAY_OP_CHECK(op, a.x.rank == 2 && a.router_w.rank == 2 && a.picks.rank == 2,
                 "x " + a.x.describe() + ", router_w " + a.router_w.describe() + ", picks " + a.picks.describe());
  const int64_t N = a.x.dim(0), d = a.x.dim(1), E = a.router_w.dim(0), k = a.picks.dim(1);
  ASSAY_CUDA_TAKES(op, cuda_limits, width, d);
  ASSAY_CUDA_TAKES(op, cuda_limits, experts, E);
  ASSAY_CUDA_TAKES(op, cuda_limits, top_k, k);
  ASSAY_OP_CHECK(op, k >= 1 && k <= E, "top_k " + std::to_string(k) + " of " + std::to_string(E) + " experts");
  check_tensor(op, "router_w", a.router_w, DType::f32, {E, d});
  check_tensor(op, "bias", a.bias, DType::f32, {E});
  check_tensor(op, "n", a.n, a.x.dtype, {N, d});
  check_tensor(op, "rstd", a.rstd, DType::f32, {N});
  check_tensor(op, "picks", a.picks, DType::i32, {N, k});
  check_tensor(op, "probs", a.probs, DType::f32, {N, k});
  check_tensor(op, "weights", a.weights, DType::f32, {N, k});
  check_tensor(op, "counts", a.counts, DType::i32, {E});
  for (const Tensor* t : {&a.x, &a.router_w, &a.n}) check_vectors(op, "a matrix", *t, d);
  const NormedFp8 n8 = normed_fp8(op, a.n8, N, d);
  ASSAY_CUDA_CHECK(op, cudaMemsetAsync(a.counts.data, 0, a.counts.bytes(), stream), a.counts.describe());
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    const NormRoute<S> r{
        a.x.as<S>(), a.router_w.as<float>(), a.bias.as<float>(),  a.n.as<S>(),           a.rstd.as<float>(),
        n8,          a.picks.as<int32_t>(),  a.probs.as<float>(), a.weights.as<float>(), a.counts.as<int32_t>(),
        N,           static_cast<int>(d),    static_cast<int>(E), static_cast<int>(k)};
    dispatch_rows_per_warp<S>(op, a.x, d, E, tiling.route_rows, [&]<class Rows, class L>(Rows, L) {
      const int warps = std::min(tiling.route_warps, most_warps);
      const size_t smem = static_cast<size_t>(warps * Rows::value * E) * sizeof(float);
      norm_route_kernel<Rows::value, L, S><<<ceil_div(N, warps * Rows::value), warps * 32, smem, stream>>>(r);
    });
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe() + " to " + std::to_string(E) + " experts");
}

void router_bias_update(cudaStream_t stream, const RouterBiasArgs& a) {
  const char* op = "router_bias_update";
  const int64_t E = a.bias.numel();
  check_tensor(op, "bias", a.bias, DType::f32, {E});
  check_tensor(op, "total", a.total, DType::i32, {E});
  bias_kernel<<<1, 256, 0, stream>>>(a.bias.as<float>(), a.total.as<int32_t>(), static_cast<int>(E), a.rate, a.skip);
  ASSAY_CUDA_LAUNCHED(op, a.bias.describe());
}

}  // namespace assay::cuda
