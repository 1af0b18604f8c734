// The one piece of device memory of a run, by the plan's names.
#pragma once

#include <initializer_list>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/ops/tensor.h"
#include "engine/plan/plan.h"

namespace assay {

// Does not own the memory; tensors taken from it are views.
class Arena {
 public:
  Arena(void* base, const std::vector<PlannedBuffer>& buffers);
  // Throws EngineError(internal) if the plan has no such buffer or another size for it.
  Tensor take(const std::string& name, DType dtype, std::initializer_list<int64_t> dims) const;
  // Scales are FP32; their shape follows from mode and codes.
  Quantized take_fp8(const std::string& name, DType format, ScaleMode mode, std::initializer_list<int64_t> dims) const;

 private:
  char* base_;
  std::unordered_map<std::string, PlannedBuffer> buffers_;
};

}  // namespace assay
