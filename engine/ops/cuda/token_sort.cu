#include "engine/ops/cuda/token_sort.h"

#include "engine/ops/cuda/buckets.cuh"

namespace assay::cuda {
namespace {

__global__ __launch_bounds__(bucket_block) void digit_count_kernel(const int32_t* tokens, int64_t N, int shift,
                                                                   int32_t* counts) {
  count_block(counts, N, max_buckets, [&](int64_t i) { return tokens[i] >> shift & 255; });
}

// Prefix sums over the blocks of each digit, then over the digits.
__global__ __launch_bounds__(1024) void digit_scan_kernel(int32_t* counts, int blocks, int32_t* first) {
  __shared__ int32_t total[max_buckets];
  for (int digit = threadIdx.x / 32; digit < max_buckets; digit += 32) {
    const int32_t sum = scan_column(counts, blocks, max_buckets, digit);
    if (threadIdx.x % 32 == 0) total[digit] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  int32_t carry = 0;
  for (int base = 0; base < max_buckets; base += 32) {
    const int32_t count = total[base + threadIdx.x];
    int32_t inclusive = count;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t below = __shfl_up_sync(0xFFFFFFFFu, inclusive, offset);
      if (threadIdx.x >= offset) inclusive += below;
    }
    first[base + threadIdx.x] = carry + inclusive - count;
    carry += __shfl_sync(0xFFFFFFFFu, inclusive, 31);
  }
}

// rows_in null: the rows are 0, 1, 2, ...
__global__ __launch_bounds__(bucket_block) void digit_move_kernel(const int32_t* tokens, const int32_t* rows_in,
                                                                  int64_t N, int shift, const int32_t* counts,
                                                                  const int32_t* first, int32_t* tokens_out,
                                                                  int32_t* rows_out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x;
  const int32_t token = i < N ? tokens[i] : 0;
  const int digit = i < N ? token >> shift & 255 : -1;
  const int32_t rank = rank_in_block(digit, max_buckets);
  if (digit < 0) return;
  const int32_t to = first[digit] + counts[static_cast<int64_t>(blockIdx.x) * max_buckets + digit] + rank;
  tokens_out[to] = token;
  rows_out[to] = rows_in != nullptr ? rows_in[i] : static_cast<int32_t>(i);
}

}  // namespace

SortedTokens sort_tokens(const char* op, cudaStream_t stream, const int32_t* tokens, int64_t N, int64_t vocabulary,
                         Workspace& workspace) {
  const int64_t blocks = ceil_div(N, bucket_block);
  int32_t* counts = workspace.take<int32_t>(op, blocks * max_buckets);
  int32_t* first = workspace.take<int32_t>(op, max_buckets);
  int32_t* token_buffers[2] = {workspace.take<int32_t>(op, N), workspace.take<int32_t>(op, N)};
  int32_t* row_buffers[2] = {workspace.take<int32_t>(op, N), workspace.take<int32_t>(op, N)};
  const int32_t *tokens_in = tokens, *rows_in = nullptr;
  int pass = 0;
  for (int shift = 0; pass == 0 || (vocabulary - 1) >> shift > 0; shift += 8, ++pass) {
    int32_t *tokens_out = token_buffers[pass % 2], *rows_out = row_buffers[pass % 2];
    digit_count_kernel<<<blocks, bucket_block, 0, stream>>>(tokens_in, N, shift, counts);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(N) + " tokens");
    digit_scan_kernel<<<1, 1024, 0, stream>>>(counts, static_cast<int>(blocks), first);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(N) + " tokens");
    digit_move_kernel<<<blocks, bucket_block, 0, stream>>>(tokens_in, rows_in, N, shift, counts, first, tokens_out,
                                                           rows_out);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(N) + " tokens");
    tokens_in = tokens_out;
    rows_in = rows_out;
  }
  return {tokens_in, rows_in};
}

}  // namespace assay::cuda
