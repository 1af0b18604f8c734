// table[token] += the rows of that token, in ascending order. A frequent token has thousands of rows, so its run in the
// sorted order is cut at every 32nd position: the pieces are summed in parallel and then added in order. The order of
// summation depends on the tokens alone; for a token of one row it is the CPU twin's.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/token_sort.h"

namespace assay::cuda {

constexpr int token_window = 32;  // sorted positions that one block looks after

struct TokenSum {
  SortedTokens sorted;
  int64_t N;
  int columns;
  float* table;
  float* carried;  // [windows, columns]: the sum of the window's first rows, where their token began in a window before
};

// A warp takes four sorted positions and 256 columns; the reads of its four rows, and of the table rows of the tokens
// that begin there, are in flight together. value.load(row, column) starts the reads of eight values, value.get(raw, x)
// makes them. A run that goes on into the next warps is finished by the warp in which it began.
// Bytes: every row once, every touched table row once in and once out.
template <class Value>
__global__ __launch_bounds__(256) void token_sum_kernel(TokenSum t, Value value) {
  constexpr int mine = 4;                                     // positions per warp
  __shared__ float continued[token_window / mine][32 * vec];  // first run of a warp, where it began before it
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t window = static_cast<int64_t>(blockIdx.x) * token_window, first = window + warp * mine;
  // Lane i: the position before the warp's first, its four, and the one after; -1 outside.
  const int64_t position = first - 1 + lane;
  const bool exists = lane < mine + 2 && position >= 0 && position < t.N;
  const int32_t lane_token = exists ? t.sorted.token[position] : -1, lane_row = exists ? t.sorted.row[position] : 0;
  int32_t token[mine + 2];
#pragma unroll
  for (int i = 0; i < mine + 2; ++i) token[i] = __shfl_sync(0xFFFFFFFFu, lane_token, i);
  const int column = (blockIdx.y * 32 + lane) * vec;
  const bool live = column < t.columns;

  decltype(value.load(0, 0)) raw[mine];
  Packed<float> old[mine];
#pragma unroll
  for (int i = 0; i < mine; ++i) {
    raw[i] = value.load(__shfl_sync(0xFFFFFFFFu, lane_row, i + 1), live ? column : 0);
    const bool begins = token[i + 1] >= 0 && token[i + 1] != token[i];
    old[i] = load_or_zero(t.table + static_cast<int64_t>(max(token[i + 1], 0)) * t.columns + column, live && begins);
  }
  float* const to_continued = &continued[warp][lane * vec];
  float* to = to_continued;  // where the current run's sum goes
  float sum[vec] = {};
#pragma unroll
  for (int i = 0; i < mine; ++i) {
    if (token[i + 1] < 0) break;
    const bool begins = token[i + 1] != token[i];
    if (begins && i > 0 && live) store(to, sum);
    if (begins) {
      unpack(old[i], sum);
      to = t.table + static_cast<int64_t>(token[i + 1]) * t.columns + column;
    } else if (i == 0 && warp == 0) {
      to = t.carried + static_cast<int64_t>(blockIdx.x) * t.columns + column;
    }
    float x[vec];
    value.get(raw[i], x);
#pragma unroll
    for (int k = 0; k < vec; ++k) sum[k] += x[k];
  }
  const bool goes_on = warp < token_window / mine - 1 && token[mine] >= 0 && token[mine + 1] == token[mine];
  const bool finishes = goes_on && to != to_continued;
  if (!finishes && live && token[1] >= 0) store(to, sum);
  __syncthreads();
  if (!finishes || !live) return;
  for (int w = warp + 1; w < token_window / mine; ++w) {
    const int64_t next = window + w * mine;
    if (next >= t.N || t.sorted.token[next] != token[mine]) break;
#pragma unroll
    for (int k = 0; k < vec; ++k) sum[k] += continued[w][lane * vec + k];
  }
  store(to, sum);
}

// A warp per window: where a token begins in it and goes on into the next ones, adds what those carried.
static __global__ __launch_bounds__(256) void token_carry_kernel(TokenSum t) {
  const int lane = threadIdx.x % 32;
  const int64_t window = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  const int64_t next = (window + 1) * token_window;
  if (next >= t.N) return;
  const int32_t token = t.sorted.token[next];
  if (t.sorted.token[next - 1] != token) return;
  const int64_t first = window * token_window;
  if (first > 0 && t.sorted.token[first] == token && t.sorted.token[first - 1] == token) return;  // began earlier
  const int column = (blockIdx.y * 32 + lane) * 4;
  const bool live = column < t.columns;
  const float4 nothing{0, 0, 0, 0};
  float4* to = reinterpret_cast<float4*>(t.table + static_cast<int64_t>(token) * t.columns + column);
  float4 sum = live ? *to : nothing;
  for (int64_t base = window + 1;; base += 32) {
    const int64_t position = (base + lane) * token_window;
    const bool same = position < t.N && t.sorted.token[position] == token;
    const int count = __popc(__ballot_sync(0xFFFFFFFFu, same));  // sorted: those that match come first
    const float* from = t.carried + base * t.columns + column;
    for (int j = 0; j < count; j += 16) {
      float4 part[16];
#pragma unroll
      for (int u = 0; u < 16; ++u)
        part[u] = live && j + u < count ? *reinterpret_cast<const float4*>(from + (j + u) * t.columns) : nothing;
#pragma unroll
      for (int u = 0; u < 16; ++u) {
        if (j + u >= count) break;
        sum.x += part[u].x, sum.y += part[u].y, sum.z += part[u].z, sum.w += part[u].w;
      }
    }
    if (count < 32) break;
  }
  if (live) *to = sum;
}

template <class Value>
void launch_token_sum(const char* op, cudaStream_t stream, const SortedTokens& sorted, int64_t N, int64_t columns,
                      const Tensor& table, const Value& value, Workspace& workspace) {
  check_vectors(op, "the table's gradient", table, columns);
  const int64_t windows = ceil_div(N, token_window), parts = ceil_div(columns, 32 * vec);
  const TokenSum t{sorted, N, static_cast<int>(columns), table.as<float>(),
                   workspace.take<float>(op, windows * columns)};
  token_sum_kernel<<<dim3(static_cast<unsigned>(windows), static_cast<unsigned>(parts)), 256, 0, stream>>>(t, value);
  ASSAY_CUDA_LAUNCHED(op, table.describe());
  token_carry_kernel<<<dim3(static_cast<unsigned>(ceil_div(windows, 8)), static_cast<unsigned>(ceil_div(columns, 128))),
                       256, 0, stream>>>(t);
  ASSAY_CUDA_LAUNCHED(op, table.describe());
}

}  // namespace assay::cuda
