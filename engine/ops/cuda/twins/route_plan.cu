// Where each (token, pick) goes: a stable distribution of the picks over the experts.
#include "engine/ops/cuda/buckets.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

struct RoutePlan {
  const int32_t* picks;
  const float* weights;
  int32_t *start, *rows, *slot, *token_of;
  float* gate_of;
  int32_t* block_counts;  // [E, blocks]
  int64_t items, R;       // N * k; rows of the permuted buffer
  int k, E;
  int64_t capacity, alignment;
};

// Counts the experts of 1,024 items; the grid also marks every row as padding.
__global__ __launch_bounds__(bucket_block) void count_kernel(RoutePlan p) {
  count_block(p.block_counts, p.items, p.E, [&](int64_t i) { return p.picks[i]; });
  const int64_t stride = static_cast<int64_t>(gridDim.x) * bucket_block;
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x; r < p.R; r += stride) {
    p.token_of[r] = -1;
    p.gate_of[r] = 0;
  }
}

__global__ __launch_bounds__(bucket_block) void place_kernel(RoutePlan p) {
  __shared__ BucketPlaces places;
  places.locate(p.block_counts, p.E, [&](int32_t items) {
    const int64_t room = p.capacity > 0 ? p.capacity : items;
    return static_cast<int32_t>(ceil_div(room, p.alignment) * p.alignment);
  });
  if (blockIdx.x == 0 && threadIdx.x < p.E) {
    p.start[threadIdx.x] = places.start[threadIdx.x];
    p.rows[threadIdx.x] = p.capacity > 0 ? static_cast<int32_t>(p.capacity) : places.total[threadIdx.x];
  }
  const int64_t i = static_cast<int64_t>(blockIdx.x) * bucket_block + threadIdx.x;
  const int expert = i < p.items ? p.picks[i] : -1;
  const int32_t rank = rank_in_block(expert, p.E);
  if (expert < 0) return;
  const int32_t place = places.earlier[expert] + rank;
  const bool fits = p.capacity == 0 || place < p.capacity;
  const int32_t row = places.start[expert] + (fits ? place : static_cast<int32_t>(p.capacity) - 1);
  p.slot[i] = row;
  if (!fits) return;  // see RoutePlanArgs: the row is another token's
  p.token_of[row] = static_cast<int32_t>(i / p.k);
  p.gate_of[row] = p.weights[i];
}

}  // namespace

void route_plan(cudaStream_t stream, const RoutePlanArgs& a, Workspace workspace) {
  const char* op = "route_plan";
  ASSAY_OP_CHECK(op, a.picks.rank == 2 && a.picks.numel() > 0 && a.capacity >= 0 && a.alignment >= 1,
                 "picks " + a.picks.describe() + ", expected [N, k]; capacity " + std::to_string(a.capacity) +
                     ", alignment " + std::to_string(a.alignment));
  const int64_t N = a.picks.dim(0), k = a.picks.dim(1), E = a.counts.numel(), R = a.token_of.numel();
  static_assert(cuda_limits[RunSize::experts].most <= max_buckets);
  ASSAY_CUDA_TAKES(op, cuda_limits, experts, E);
  ASSAY_CUDA_TAKES(op, cuda_limits, top_k, k);
  ASSAY_CUDA_TAKES(op, cuda_limits, picks, N * k);
  ASSAY_CUDA_TAKES(op, cuda_limits, routed_rows, R);
  ASSAY_OP_CHECK(op, k <= E, "top_k " + std::to_string(k) + " of " + std::to_string(E) + " experts");
  check_tensor(op, "picks", a.picks, DType::i32, {N, k});
  check_tensor(op, "counts", a.counts, DType::i32, {E});
  check_tensor(op, "start", a.start, DType::i32, {E});
  check_tensor(op, "rows", a.rows, DType::i32, {E});
  check_tensor(op, "slot", a.slot, DType::i32, {N, k});
  check_tensor(op, "token_of", a.token_of, DType::i32, {R});
  check_tensor(op, "weights", a.weights, DType::f32, {N, k});
  check_tensor(op, "gate_of", a.gate_of, DType::f32, {R});
  const int64_t needed =
      a.capacity > 0 ? E * (ceil_div(a.capacity, a.alignment) * a.alignment) : N * k + E * (a.alignment - 1);
  ASSAY_OP_CHECK(op, R >= needed, "token_of has " + std::to_string(R) + " rows, needs " + std::to_string(needed));
  const int64_t blocks = ceil_div(N * k, bucket_block);
  const RoutePlan p{a.picks.as<int32_t>(),
                    a.weights.as<float>(),
                    a.start.as<int32_t>(),
                    a.rows.as<int32_t>(),
                    a.slot.as<int32_t>(),
                    a.token_of.as<int32_t>(),
                    a.gate_of.as<float>(),
                    workspace.take<int32_t>(op, blocks * E),
                    N * k,
                    R,
                    static_cast<int>(k),
                    static_cast<int>(E),
                    a.capacity,
                    a.alignment};
  count_kernel<<<blocks, bucket_block, 0, stream>>>(p);
  ASSAY_CUDA_LAUNCHED(op, a.picks.describe());
  place_kernel<<<blocks, bucket_block, 0, stream>>>(p);
  ASSAY_CUDA_LAUNCHED(op, a.picks.describe());
}

}  // namespace assay::cuda
