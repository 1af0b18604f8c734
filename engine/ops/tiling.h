// What a backend is told of a run before the run begins, to choose how its memory-bound kernels are cut into blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/ops/tensor.h"

namespace assay {

struct TilingRequest {
  int64_t tokens = 0, T = 0;  // of a micro-batch, of a sequence
  int64_t d = 0, heads = 0, head_dim = 0, experts = 0, top_k = 0;
  DType activation = DType::bf16;
  bool routed_codes = false;    // rows go to the experts in FP8
  bool gradient_codes = false;  // the packed projection's gradient comes out of its producer in FP8
  // Device memory to try the kernels in, 256-byte aligned: overwritten.
  void* memory = nullptr;
  size_t bytes = 0;
};

}  // namespace assay
