// Gradient of the router's matrix: n is read once; blocks sum their rows in shared memory or registers, then the blocks
// are summed in order.
#include "engine/ops/cuda/router_weight.h"

#include "engine/ops/cuda/element.cuh"

namespace assay::cuda {
namespace {

constexpr int weight_row_blocks = 264;  // 2 per SM of an H100; part of the result, as it fixes the order of sums
constexpr int weight_smem = 96 * 1024;  // two blocks fit on an SM
constexpr int weight_threads = 384;

template <class S>
struct RouterGrad {
  const S* n;
  const int32_t* picks;
  const float* dlogits;
  int64_t N;
  int d, E, k;
};

// How a block of the weight gradient is divided: `groups` groups of threads, each with its own sums [E, tile] in shared
// memory; a thread owns eight columns, so no two add to the same place.
struct WeightTile {
  int columns;  // of the tile, a multiple of 8
  int groups;
  int threads() const { return columns / vec * groups; }
  size_t smem(int E) const { return static_cast<size_t>(groups) * E * columns * sizeof(float); }
};
WeightTile weight_tile(int d, int E) {
  const int widest = std::min(weight_threads, weight_smem / (E * static_cast<int>(sizeof(float))) / vec) * vec;
  const int tiles = static_cast<int>(ceil_div(d, widest));
  const int columns = static_cast<int>(ceil_div(ceil_div(d, tiles), vec)) * vec;
  const int by_smem = weight_smem / (E * columns * static_cast<int>(sizeof(float)));
  return {columns, std::max(1, std::min(by_smem, weight_threads / (columns / vec)))};
}

// Many experts: each row is added to its experts' sums in shared memory.
template <class S>
__device__ __forceinline__ void sum_picked(const RouterGrad<S>& a, const WeightTile& tile, int64_t first, int64_t end,
                                           int column, float* mine) {
  if (column >= a.d) return;
  constexpr int ahead = 4;  // rows whose loads are in flight together
  for (int64_t row = first; row < end; row += ahead * tile.groups) {
    Packed<S> n[ahead];
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int64_t r = row + u * tile.groups;
      n[u] = load_or_zero(a.n + r * a.d + column, r < end);
    }
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int64_t r = row + u * tile.groups;
      if (r >= end) break;
      for (int j = 0; j < a.k; ++j) {
        const float g = a.dlogits[r * a.k + j];
        float* to = mine + a.picks[r * a.k + j] * tile.columns;
        const Packed<float> old = load(to);
        float sum[vec];
#pragma unroll
        for (int i = 0; i < vec; ++i) sum[i] = fmaf(g, n[u].get(i), old.get(i));
        store(to, sum);
      }
    }
  }
}

// Few experts: every row is multiplied with the gradients of all of them, most of which are 0; the sums stay in
// registers, which costs less than bringing them from shared memory and back.
constexpr int few = 8, staged_rows = 256;

template <class S>
__device__ __forceinline__ void sum_all(const RouterGrad<S>& a, const WeightTile& tile, int64_t first, int64_t end,
                                        int group, int column, float* mine) {
  __shared__ float dlogits[staged_rows][few];
  constexpr int ahead = 4;
  float sum[few][vec] = {};
  const bool live = column < a.d;
  for (int64_t base = first; base < end; base += staged_rows) {
    const int rows = static_cast<int>(min(static_cast<int64_t>(staged_rows), end - base));
    __syncthreads();
    for (int i = threadIdx.x; i < staged_rows * few; i += blockDim.x) dlogits[i / few][i % few] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < rows * a.k; i += blockDim.x)
      dlogits[i / a.k][a.picks[base * a.k + i]] = a.dlogits[base * a.k + i];
    __syncthreads();
    // The next rows are asked for before these are multiplied.
    const auto fetch = [&](Packed<S>(&n)[ahead], int row) {
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const int r = row + u * tile.groups;
        n[u] = load_or_zero(a.n + (base + r) * a.d + column, live && r < rows);
      }
    };
    Packed<S> n[ahead], next[ahead];
    fetch(n, group);
    for (int row = group; row < rows; row += ahead * tile.groups) {
      fetch(next, row + ahead * tile.groups);
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const float* g = dlogits[min(row + u * tile.groups, staged_rows - 1)];
#pragma unroll
        for (int e = 0; e < few; ++e)
#pragma unroll
          for (int i = 0; i < vec; ++i) sum[e][i] = fmaf(g[e], n[u].get(i), sum[e][i]);
        n[u] = next[u];
      }
    }
  }
  if (!live) return;
#pragma unroll
  for (int e = 0; e < few; ++e)
    if (e < a.E) store(mine + e * tile.columns, sum[e]);
}

template <class S, bool few_experts>
__global__ __launch_bounds__(weight_threads) void router_weight_kernel(RouterGrad<S> a, WeightTile tile,
                                                                       float* partial) {
  extern __shared__ __align__(16) float sums[];  // [groups, E, columns]
  const int size = a.E * tile.columns;
  for (int i = threadIdx.x; i < tile.groups * size; i += blockDim.x) sums[i] = 0;
  __syncthreads();
  const int owner = threadIdx.x % (tile.columns / vec), group = threadIdx.x / (tile.columns / vec);
  const int column = blockIdx.y * tile.columns + owner * vec;
  const int64_t per_block = (a.N + gridDim.x - 1) / gridDim.x, first = blockIdx.x * per_block;
  const int64_t end = min(a.N, first + per_block);
  float* mine = sums + group * size + owner * vec;
  if constexpr (few_experts) {
    sum_all(a, tile, first, end, group, column, mine);
  } else {
    sum_picked(a, tile, first + group, end, column, mine);
  }
  __syncthreads();
  float* out = partial + static_cast<int64_t>(blockIdx.x) * a.E * a.d;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    float sum = sums[i];
    for (int g = 1; g < tile.groups; ++g) sum += sums[g * size + i];
    const int to = blockIdx.y * tile.columns + i % tile.columns;
    if (to < a.d) out[i / tile.columns * a.d + to] = sum;
  }
}

__global__ __launch_bounds__(256) void router_sum_kernel(const float* partial, int blocks, int count, float* grad) {
  const int i = blockIdx.x * 32 + threadIdx.x % 32, part = threadIdx.x / 32;
  __shared__ float sums[8][32];
  float sum = 0;
  if (i < count)
#pragma unroll 8
    for (int b = part; b < blocks; b += 8) sum += partial[static_cast<int64_t>(b) * count + i];
  sums[part][threadIdx.x % 32] = sum;
  __syncthreads();
  if (part != 0 || i >= count) return;
  for (int p = 1; p < 8; ++p) sum += sums[p][threadIdx.x];
  grad[i] += sum;
}

std::string shape(const RouterWeightGrad& a) {
  return a.n.describe() + ", " + std::to_string(a.E) + " experts";
}

template <class S>
void launch(cudaStream_t stream, const RouterWeightGrad& a, Workspace& workspace) {
  const char* op = "router_weight_grad";
  const RouterGrad<S> g{a.n.as<S>(), a.picks, a.dlogits, a.n.dim(0), static_cast<int>(a.n.dim(1)), a.E, a.k};
  const WeightTile tile = weight_tile(g.d, g.E);
  const int64_t tiles = ceil_div(g.d, tile.columns);  // more tiles, fewer row blocks: the partial sums stay under 26 MB
  const int64_t blocks = std::min(std::max<int64_t>(weight_row_blocks / tiles, 1), ceil_div(g.N, 4 * tile.groups));
  float* partial = workspace.take<float>(op, blocks * g.E * g.d);
  const auto kernel = g.E <= few ? router_weight_kernel<S, true> : router_weight_kernel<S, false>;
  ASSAY_CUDA_CHECK(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, weight_smem));
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles));
  kernel<<<grid, tile.threads(), tile.smem(g.E), stream>>>(g, tile, partial);
  ASSAY_CUDA_LAUNCHED(op, shape(a));
  sum_router_parts(stream, partial, blocks, g.E * g.d, a.router_w_grad);
}

}  // namespace

void sum_router_parts(cudaStream_t stream, const float* parts, int64_t blocks, int count, float* router_w_grad) {
  router_sum_kernel<<<ceil_div(count, 32), 256, 0, stream>>>(parts, static_cast<int>(blocks), count, router_w_grad);
  ASSAY_CUDA_LAUNCHED("router_weight_grad", std::to_string(count) + " weights");
}

void router_weight_grad(cudaStream_t stream, const RouterWeightGrad& a, Workspace workspace) {
  dispatch("router_weight_grad", a.n.dtype, [&]<class S>(S) { launch<S>(stream, a, workspace); });
}

}  // namespace assay::cuda
