// softcap + cross entropy for any vocabulary, type and cap, and the choice of a kernel.
#include "engine/ops/cuda/loss.cuh"

#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

constexpr int threads = loss_threads;

__device__ __forceinline__ float tanh_of(float u) {
  return 1.0f - 2.0f / (__expf(2.0f * u) + 1.0f);
}

// Any V, type and cap: the row is read three times, after the first from the caches.
template <class S>
__global__ __launch_bounds__(threads) void loss_kernel(Loss<S> a) {
  __shared__ float parts[32];
  BlockReduce reduce{parts};
  S* row = a.logits + static_cast<int64_t>(blockIdx.x) * a.V;
  const int target = a.targets[blockIdx.x];
  // tanh rises, so the largest logit gives the largest z.
  float top = -INFINITY;
  for (int j = threadIdx.x; j < a.V; j += threads) top = fmaxf(top, to_float(row[j]));
  top = a.cap * tanh_of(reduce.max(top) * a.inverse_cap);
  float sum = 0;
  for (int j = threadIdx.x; j < a.V; j += threads)
    sum += __expf(a.cap * tanh_of(to_float(row[j]) * a.inverse_cap) - top);
  sum = reduce.sum(sum);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = top + logf(sum) - a.cap * tanh_of(to_float(row[target]) * a.inverse_cap);
  if (a.forward_only) return;
  __syncthreads();  // the target's logit has been read
  const float inverse = 1.0f / sum;
  for (int j = threadIdx.x; j < a.V; j += threads) {
    const float t = tanh_of(to_float(row[j]) * a.inverse_cap);
    const float p = __expf(a.cap * t - top) * inverse - (j == target ? 1.0f : 0.0f);
    row[j] = rounded<S>(p * a.grad_scale * (1.0f - t * t));
  }
}

void check_codes(const char* op, const SoftcapXentArgs& a, int64_t C, int64_t V) {
  if (a.grad8) check_quantized(op, "grad8", a.grad8, 1, C, V);
  if (a.grad8t) check_quantized(op, "grad8t", a.grad8t, 1, V, C);
  ASSAY_OP_CHECK(op, !a.grad8 || !a.grad8t || a.grad8.codes.dtype == a.grad8t.codes.dtype,
                 "grad8 and grad8t differ in format");
  for (const Quantized* q : {&a.grad8, &a.grad8t})
    ASSAY_OP_CHECK(op, !*q || q->mode == ScaleMode::tensorwise, "codes of the gradient are tensorwise");
}

}  // namespace

void softcap_xent(cudaStream_t stream, const SoftcapXentArgs& a, Workspace workspace) {
  const char* op = "softcap_xent";
  ASSAY_OP_CHECK(op, a.logits && a.logits.rank == 2 && a.softcap > 0,
                 "logits are " + a.logits.describe() + ", expected [C, V]");
  const int64_t C = a.logits.dim(0), V = a.logits.dim(1);
  check_tensor(op, "targets", a.targets, DType::i32, {C});
  check_tensor(op, "loss", a.loss, DType::f32, {C});
  check_codes(op, a, C, V);
  if (C == 0) return;
  const auto aligned_to = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.data) % 16 == 0; };
  bool produced = false;
  dispatch(op, a.logits.dtype, [&]<class S>(S) {
    const bool aligned = V % vec == 0 && aligned_to(a.logits);
    const Loss<S> loss{a.logits.as<S>(),
                       a.targets.as<int32_t>(),
                       a.loss.as<float>(),
                       C,
                       static_cast<int>(V),
                       static_cast<float>(a.softcap),
                       static_cast<float>(1.0 / a.softcap),
                       static_cast<float>(a.grad_scale),
                       a.forward_only,
                       nullptr,
                       {},
                       1.0f};
    if constexpr (sizeof(S) == 2) {
      if (aligned && a.softcap <= highest_cap) {
        produced = a.grad8 && a.grad8t && V % 128 == 0 && aligned_to(a.grad8.codes) && aligned_to(a.grad8t.codes);
        return produced ? bf16_loss_codes(stream, loss, a) : bf16_loss(stream, loss, a.softcap);
      }
    }
    loss_kernel<S><<<C, threads, 0, stream>>>(loss);
  });
  ASSAY_CUDA_LAUNCHED(op, a.logits.describe());
  if (!produced && !a.forward_only && (a.grad8 || a.grad8t))
    quantize(stream, {.x = a.logits, .out = a.grad8, .transposed = a.grad8t, .static_scale = gradient_scale(a)},
             workspace);
}

}  // namespace assay::cuda
