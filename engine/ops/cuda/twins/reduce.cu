// Element-wise helpers. Bytes: every input once, every output once (add also reads it).
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

// The vectors of a tensor that may be read 16 bytes at a time; the rest is read element by element.
int64_t whole_vectors(const Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 ? t.numel() / vec : 0;
}

// to = from, or to += from. A block takes 512 vectors, each thread two; then the elements that fill no vector.
template <bool accumulate, class From, class To>
__global__ __launch_bounds__(256) void convert_kernel(const From* from, To* to, int64_t n, int64_t vectors) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 512 + threadIdx.x;
  Packed<From> in[2];
  Packed<To> old[2];
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const bool valid = first + u * 256 < vectors;
    in[u] = load_or_zero(from + (first + u * 256) * vec, valid);
    if constexpr (accumulate) old[u] = load_or_zero(to + (first + u * 256) * vec, valid);
  }
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    float x[vec];
#pragma unroll
    for (int i = 0; i < vec; ++i) x[i] = accumulate ? old[u].get(i) + in[u].get(i) : in[u].get(i);
    if (first + u * 256 < vectors) store(to + (first + u * 256) * vec, x);
  }
  const int64_t stride = static_cast<int64_t>(gridDim.x) * 256;
  for (int64_t i = vectors * vec + static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x; i < n; i += stride)
    to[i] = rounded<To>(accumulate ? to_float(to[i]) + to_float(from[i]) : to_float(from[i]));
}

template <bool accumulate>
void launch_convert(const char* op, cudaStream_t stream, const Tensor& from, const Tensor& to) {
  const int64_t n = from.numel(), vectors = std::min(whole_vectors(from), whole_vectors(to));
  if (n == 0) return;
  const int64_t blocks = std::max(ceil_div(vectors, 512), std::min<int64_t>(ceil_div(n - vectors * vec, 256), 4096));
  dispatch(op, from.dtype, [&]<class From>(From) {
    dispatch(op, to.dtype, [&]<class To>(To) {
      convert_kernel<accumulate><<<blocks, 256, 0, stream>>>(from.as<From>(), to.as<To>(), n, vectors);
    });
  });
  ASSAY_CUDA_LAUNCHED(op, from.describe() + " to " + to.describe());
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void add(cudaStream_t stream, const AddArgs& a) {
  ASSAY_OP_CHECK("add", a.x && a.y && a.x.numel() == a.y.numel(),
                 a.x.describe() + " cannot be added to " + a.y.describe());
  launch_convert<true>("add", stream, a.x, a.y);
}

void cast(cudaStream_t stream, const CastArgs& a) {
  const char* op = "cast";
  ASSAY_OP_CHECK(op, a.x && a.dst && a.x.numel() == a.dst.numel(),
                 a.x.describe() + " cannot be cast to " + a.dst.describe());
  launch_convert<false>(op, stream, a.x, a.dst);
}

void fill_zero(cudaStream_t stream, const FillZeroArgs& a) {
  ASSAY_OP_CHECK("fill_zero", a.x, "x is empty");
  ASSAY_CUDA_CHECK("fill_zero", cudaMemsetAsync(a.x.data, 0, a.x.bytes(), stream), a.x.describe());
  ++launches;
}

}  // namespace assay::cuda
