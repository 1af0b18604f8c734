// relu^2. Bytes per element: relu2 2 in, 2 out; relu2_grad du, h in, dz out (2 each).
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

// A block takes 512 vectors, each thread two of them, so that two loads are in flight.
template <class S>
__global__ __launch_bounds__(256) void relu2_kernel(const S* z, S* h, int64_t vectors) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 512 + threadIdx.x;
  Packed<S> in[2];
#pragma unroll
  for (int u = 0; u < 2; ++u) in[u] = load_or_zero(z + (first + u * 256) * vec, first + u * 256 < vectors);
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    float x[vec];
    unpack(in[u], x);
#pragma unroll
    for (int i = 0; i < vec; ++i) x[i] = x[i] < 0 ? 0.0f : x[i] * x[i];  // not fmaxf: a NaN must come out as NaN
    if (first + u * 256 < vectors) store(h + (first + u * 256) * vec, x);
  }
}

// A warp per row. gate and gate_grad: both or none.
template <class S>
__global__ __launch_bounds__(256) void relu2_grad_kernel(const S* du, const S* h, S* dz, const float* gate,
                                                         float* gate_grad, int64_t R, int width) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (r >= R) return;
  float dot = 0;
#pragma unroll 4
  for (int column = threadIdx.x % 32 * vec; column < width; column += 32 * vec) {
    const int64_t at = r * width + column;
    const Packed<S> g = load(du + at), hidden = load(h + at);
    float out[vec];
#pragma unroll
    for (int i = 0; i < vec; ++i) {
      dot += g.get(i) * hidden.get(i);
      out[i] = g.get(i) * (2.0f * sqrtf(hidden.get(i)));
    }
    store(dz + at, out);
  }
  if (gate == nullptr) return;
  dot = warp_sum(dot);
  if (threadIdx.x % 32 == 0) gate_grad[r] = gate[r] != 0 ? dot / gate[r] : 0.0f;
}

}  // namespace

void relu2(cudaStream_t stream, const Relu2Args& a) {
  const char* op = "relu2";
  const int64_t n = a.z.numel();
  check_tensor(op, "h", a.h, a.z.dtype, {n});
  check_vectors(op, "z", a.z, n);
  check_vectors(op, "h", a.h, n);
  if (n == 0) return;
  dispatch(op, a.z.dtype, [&]<class S>(S) {
    relu2_kernel<S><<<ceil_div(n / vec, 512), 256, 0, stream>>>(a.z.as<S>(), a.h.as<S>(), n / vec);
  });
  ASSAY_CUDA_LAUNCHED(op, a.z.describe());
}

void relu2_grad(cudaStream_t stream, const Relu2GradArgs& a) {
  const char* op = "relu2_grad";
  ASSAY_OP_CHECK(op, a.du && a.du.rank == 2, "du is " + a.du.describe() + ", expected [R, h]");
  const int64_t R = a.du.dim(0), width = a.du.dim(1);
  check_tensor(op, "h", a.h, a.du.dtype, {R, width});
  check_tensor(op, "dz", a.dz, a.du.dtype, {R, width});
  ASSAY_OP_CHECK(op, static_cast<bool>(a.gate) == static_cast<bool>(a.gate_grad),
                 "gate and gate_grad go together, got " + a.gate.describe() + " and " + a.gate_grad.describe());
  if (a.gate) check_tensor(op, "gate", a.gate, DType::f32, {R});
  if (a.gate) check_tensor(op, "gate_grad", a.gate_grad, DType::f32, {R});
  for (const Tensor* t : {&a.du, &a.h, &a.dz}) check_vectors(op, "a matrix", *t, width);
  if (R == 0) return;
  dispatch(op, a.du.dtype, [&]<class S>(S) {
    relu2_grad_kernel<S><<<ceil_div(R, 8), 256, 0, stream>>>(a.du.as<S>(), a.h.as<S>(), a.dz.as<S>(),
                                                             a.gate.as<float>(), a.gate_grad.as<float>(), R,
                                                             static_cast<int>(width));
  });
  ASSAY_CUDA_LAUNCHED(op, a.du.describe());
}

}  // namespace assay::cuda
