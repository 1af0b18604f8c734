#include "engine/ops/cuda/token_sort.h"

#include "engine/ops/cuda/buckets.cuh"

namespace assay::cuda {
namespace {

__global__ __launch_bounds__(bucket_block) void digit_count_kernel(const int32_t* tokens, int64_t N, int shift,
                                                                   int32_t* counts) {
  count_block(counts, N, max_buckets, [&](int64_t i) { return tokens[i] >> shift & 255; });
}

// rows_in null: the rows are 0, 1, 2, ...
__global__ __launch_bounds__(bucket_block) void digit_move_kernel(const int32_t* tokens, const int32_t* rows_in,
                                                                  int64_t N, int shift, const int32_t* counts,
                                                                  int32_t* tokens_out, int32_t* rows_out) {
  __shared__ BucketPlaces places;
  places.locate(counts, max_buckets, [](int32_t items) { return items; });
  const int64_t i = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x;
  const int32_t token = i < N ? tokens[i] : 0;
  const int digit = i < N ? token >> shift & 255 : -1;
  const int32_t rank = rank_in_block(digit, max_buckets);
  if (digit < 0) return;
  const int32_t to = places.start[digit] + places.earlier[digit] + rank;
  tokens_out[to] = token;
  rows_out[to] = rows_in != nullptr ? rows_in[i] : static_cast<int32_t>(i);
}

}  // namespace

SortedTokens sort_tokens(const char* op, cudaStream_t stream, const int32_t* tokens, int64_t N, int64_t vocabulary,
                         Workspace& workspace) {
  const int64_t blocks = ceil_div(N, bucket_block);
  int32_t* counts = workspace.take<int32_t>(op, blocks * max_buckets);
  int32_t* token_buffers[2] = {workspace.take<int32_t>(op, N), workspace.take<int32_t>(op, N)};
  int32_t* row_buffers[2] = {workspace.take<int32_t>(op, N), workspace.take<int32_t>(op, N)};
  const int32_t *tokens_in = tokens, *rows_in = nullptr;
  int pass = 0;
  for (int shift = 0; pass == 0 || (vocabulary - 1) >> shift > 0; shift += 8, ++pass) {
    int32_t *tokens_out = token_buffers[pass % 2], *rows_out = row_buffers[pass % 2];
    digit_count_kernel<<<blocks, bucket_block, 0, stream>>>(tokens_in, N, shift, counts);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(N) + " tokens");
    digit_move_kernel<<<blocks, bucket_block, 0, stream>>>(tokens_in, rows_in, N, shift, counts, tokens_out, rows_out);
    ASSAY_CUDA_LAUNCHED(op, std::to_string(N) + " tokens");
    tokens_in = tokens_out;
    rows_in = rows_out;
  }
  return {tokens_in, rows_in};
}

}  // namespace assay::cuda
