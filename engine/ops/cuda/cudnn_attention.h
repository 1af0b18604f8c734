// Causal attention by cuDNN (through cudnn-frontend): one object per shape, built when the plan is made.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace assay::cuda {

struct AttentionShape {
  int64_t batch = 0, sequence_len = 0, heads = 0, head_dim = 0;
  int64_t window = 0;         // query t sees keys max(0, t - window + 1) .. t
  bool deterministic = true;  // backward: a fixed order of summation for dq
};

// Works on the packed projection qkv [batch * T, 3, heads, head_dim] (BF16) by strides; out [batch * T, heads,
// head_dim].
class CudnnAttention {
 public:
  // Loads cuDNN on first use. Throws EngineError(device_error) if the library is missing or too old, and
  // EngineError(plan_error) with the shape if it has no engine for it.
  static std::unique_ptr<CudnnAttention> create(const AttentionShape&);
  virtual ~CudnnAttention() = default;
  virtual size_t workspace_bytes() const = 0;
  // lse: FP32 [batch, heads, T].
  virtual void forward(cudaStream_t, const void* qkv, void* out, float* lse, void* workspace) = 0;
  virtual void backward(cudaStream_t, const void* qkv, const void* out, const float* lse, const void* dout, void* dqkv,
                        void* workspace) = 0;
};

}  // namespace assay::cuda
