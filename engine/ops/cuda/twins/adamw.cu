// AdamW. Bytes per element: param, grad, m, v in, param, m, v out: 28.
#include <cmath>

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

struct AdamW {
  float *param, *m, *v;
  const float* grad;
  const int32_t* skip;
  float keep, take1, take2, eps, step_size, v_correction;

  __device__ __forceinline__ void update(float& p, float g, float& m1, float& v1) const {
    m1 += (g - m1) * take1;
    v1 += (g * g - v1) * take2;
    p = p * keep - step_size * m1 / (sqrtf(v1 / v_correction) + eps);
  }
};

__global__ __launch_bounds__(256) void adamw_kernel(AdamW a, int64_t n) {
  if (a.skip != nullptr && *a.skip != 0) return;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * 4;
  if (i + 4 <= n) {
    float4 p = *reinterpret_cast<float4*>(a.param + i), m = *reinterpret_cast<float4*>(a.m + i);
    float4 v = *reinterpret_cast<float4*>(a.v + i);
    const float4 g = *reinterpret_cast<const float4*>(a.grad + i);
    a.update(p.x, g.x, m.x, v.x);
    a.update(p.y, g.y, m.y, v.y);
    a.update(p.z, g.z, m.z, v.z);
    a.update(p.w, g.w, m.w, v.w);
    *reinterpret_cast<float4*>(a.param + i) = p;
    *reinterpret_cast<float4*>(a.m + i) = m;
    *reinterpret_cast<float4*>(a.v + i) = v;
  } else {
    for (int64_t j = i; j < n; ++j) a.update(a.param[j], a.grad[j], a.m[j], a.v[j]);
  }
}

}  // namespace

void adamw(cudaStream_t stream, const AdamWArgs& a) {
  const char* op = "adamw";
  const int64_t n = a.param.numel();
  ASSAY_OP_CHECK(op, a.step >= 1, "step " + std::to_string(a.step) + ", expected a 1-based step");
  check_tensor(op, "param", a.param, DType::f32, {n});
  check_tensor(op, "grad", a.grad, DType::f32, {n});
  check_tensor(op, "m", a.m, DType::f32, {n});
  check_tensor(op, "v", a.v, DType::f32, {n});
  for (const Tensor* t : {&a.param, &a.grad, &a.m, &a.v}) check_vectors(op, "a tensor", *t, vec);
  if (n == 0) return;
  const AdamW k{a.param.as<float>(),
                a.m.as<float>(),
                a.v.as<float>(),
                a.grad.as<float>(),
                a.skip,
                static_cast<float>(1 - a.lr * a.weight_decay),
                static_cast<float>(1 - a.beta1),
                static_cast<float>(1 - a.beta2),
                static_cast<float>(a.eps),
                static_cast<float>(a.lr / (1 - std::pow(a.beta1, static_cast<double>(a.step)))),
                static_cast<float>(1 - std::pow(a.beta2, static_cast<double>(a.step)))};
  adamw_kernel<<<ceil_div(n, 1024), 256, 0, stream>>>(k, n);
  ASSAY_CUDA_LAUNCHED(op, a.param.describe());
}

}  // namespace assay::cuda
