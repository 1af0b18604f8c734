// table[token] += the rows of that token, in ascending order: the summation order of the CPU twin.
#pragma once

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/token_sort.h"

namespace assay::cuda {

constexpr int token_window = 32;  // sorted positions whose tokens one block looks after

// A block finds the tokens whose first row lies in its window and gives each to a warp, which owns 256 columns of it.
// value.row(row) prepares a row, value.get(prepared, row, column, x) gives eight of its values.
// Bytes: every row once, every touched table row once in and once out.
template <class Value>
__global__ __launch_bounds__(256) void token_sum_kernel(SortedTokens sorted, int64_t N, int columns, float* table,
                                                        Value value) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * token_window;
  const int64_t mine = first + lane;
  const bool starts = mine < N && (mine == 0 || sorted.token[mine] != sorted.token[mine - 1]);
  uint32_t heads = __ballot_sync(0xFFFFFFFFu, starts);
  const int column = (blockIdx.y * 32 + lane) * vec;
  const bool live = column < columns;
  for (int index = 0; heads != 0; heads &= heads - 1, ++index) {
    if (index % 8 != warp) continue;
    const int64_t begin = first + __ffs(heads) - 1;
    const int32_t token = sorted.token[begin];
    float* to = table + static_cast<int64_t>(token) * columns + column;
    float sum[vec] = {};
    if (live) unpack(load(to), sum);
    for (int64_t p = begin; p < N && sorted.token[p] == token;) {
      // Up to 32 rows of the token at a time: one coalesced read of their numbers, then independent row reads.
      const bool same = p + lane < N && sorted.token[p + lane] == token;
      const int count = __popc(__ballot_sync(0xFFFFFFFFu, same));
      const int32_t row = same ? sorted.row[p + lane] : 0;
      for (int j = 0; j < count; j += 8) {
        float x[8][vec];
#pragma unroll
        for (int u = 0; u < 8; ++u) {
          const int32_t r = __shfl_sync(0xFFFFFFFFu, row, (j + u) & 31);
          if (live && j + u < count) value.get(r, column, x[u]);
        }
#pragma unroll
        for (int u = 0; u < 8; ++u)
          if (j + u < count)
#pragma unroll
            for (int i = 0; i < vec; ++i) sum[i] += x[u][i];
      }
      p += count;
    }
    if (live) store(to, sum);
  }
}

template <class Value>
void launch_token_sum(const char* op, cudaStream_t stream, const SortedTokens& sorted, int64_t N, int64_t columns,
                      const Tensor& table, const Value& value) {
  check_vectors(op, "the table's gradient", table, columns);
  const dim3 grid(static_cast<unsigned>(ceil_div(N, token_window)), static_cast<unsigned>(ceil_div(columns, 32 * vec)));
  token_sum_kernel<<<grid, 256, 0, stream>>>(sorted, N, static_cast<int>(columns), table.as<float>(), value);
  ASSAY_CUDA_LAUNCHED(op, table.describe());
}

}  // namespace assay::cuda
