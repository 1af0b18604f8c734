// Sums and sums of squares in f64. Bytes: every input once.
#include <algorithm>

#include "engine/ops/cuda/batch.cuh"
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

// A tensor is summed in pieces of this size, one block each, and then the pieces in order: the size is part of the
// result. All pieces of all tensors go in one launch, because most parameters alone do not fill the GPU.
constexpr int64_t piece = 32768;
constexpr int threads = 256;
constexpr int max_tensors = 128;  // of a launch: their table is a kernel parameter, which may have 4 KiB

struct Sources {
  const void* x[max_tensors];
  int64_t n[max_tensors];
  int32_t first_piece[max_tensors + 1];
  int count;
};

template <bool squares>
__device__ __forceinline__ double term(float x) {
  const double wide = x;
  return squares ? wide * wide : wide;
}

__device__ __forceinline__ double block_sum(double x) {  // to thread 0
  __shared__ double parts[threads / 32];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  for (int i = 1; i < threads / 32; ++i) x += parts[i];
  return x;
}

// partial[blockIdx.x] = the sum of that piece.
template <bool squares, class S>
__global__ __launch_bounds__(threads) void sum_kernel(const __grid_constant__ Sources from, double* partial) {
  const int p = blockIdx.x;
  const int t = entry_of(p, from.count, [&](int i) { return from.first_piece[i]; });
  const int64_t first = (p - from.first_piece[t]) * piece;
  const S* x = static_cast<const S*>(from.x[t]) + first;
  const int n = static_cast<int>(min(piece, from.n[t] - first));
  // What may be read 16 bytes at a time; the rest is read element by element.
  const int vectors = reinterpret_cast<uintptr_t>(x) % 16 == 0 ? n / vec : 0;
  double sum = 0;
  for (int i = threadIdx.x; i < vectors; i += 4 * threads) {
    Packed<S> v[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) v[u] = load_or_zero(x + (i + u * threads) * vec, i + u * threads < vectors);
#pragma unroll
    for (int u = 0; u < 4; ++u)
#pragma unroll
      for (int j = 0; j < vec; ++j) sum += term<squares>(v[u].get(j));
  }
  for (int i = vectors * vec + threadIdx.x; i < n; i += threads) sum += term<squares>(to_float(x[i]));
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[p] = sum;
}

// out[blockIdx.x] += the pieces of that tensor.
__global__ __launch_bounds__(threads) void add_pieces_kernel(const __grid_constant__ Sources from,
                                                             const double* partial, double* out) {
  double sum = 0;
  for (int p = from.first_piece[blockIdx.x] + threadIdx.x; p < from.first_piece[blockIdx.x + 1]; p += threads)
    sum += partial[p];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] += sum;
}

// out[i] += the sum over x[i], i < count <= max_tensors.
template <bool squares>
void launch_sums(const char* op, cudaStream_t stream, const Tensor* x, int count, double* out, Workspace workspace) {
  Sources from;
  from.count = count;
  from.first_piece[0] = 0;
  for (int i = 0; i < count; ++i) {
    ASSAY_OP_CHECK(op, x[i] && x[i].dtype == x[0].dtype, "x " + x[i].describe() + " is empty or of another type");
    from.x[i] = x[i].data;
    from.n[i] = x[i].numel();
    from.first_piece[i + 1] = from.first_piece[i] + static_cast<int32_t>(ceil_div(from.n[i], piece));
  }
  const int pieces = from.first_piece[count];
  double* partial = workspace.take<double>(op, pieces);
  dispatch(op, x[0].dtype, [&]<class S>(S) {
    if (pieces > 0) sum_kernel<squares, S><<<pieces, threads, 0, stream>>>(from, partial);
  });
  ASSAY_CUDA_LAUNCHED(op, x[0].describe());
  add_pieces_kernel<<<count, threads, 0, stream>>>(from, partial, out);
  ASSAY_CUDA_LAUNCHED(op, x[0].describe());
}

}  // namespace

void sum_squares(cudaStream_t stream, const SumSquaresArgs& a, Workspace workspace) {
  ASSAY_OP_CHECK("sum_squares", a.out != nullptr, "out is empty");
  for (size_t first = 0; first < a.x.size(); first += max_tensors)
    launch_sums<true>("sum_squares", stream, a.x.data() + first,
                      static_cast<int>(std::min<size_t>(max_tensors, a.x.size() - first)), a.out + first, workspace);
}

void sum(cudaStream_t stream, const SumArgs& a, Workspace workspace) {
  ASSAY_OP_CHECK("sum", a.out != nullptr, "out is empty");
  launch_sums<false>("sum", stream, &a.x, 1, a.out, workspace);
}

}  // namespace assay::cuda
