// The CUDA backend of the op interface: every op on one stream of the current device.
#pragma once

#include <memory>
#include <string>

#include "engine/ops/backend.h"

namespace assay {

// Whether a Hopper GPU with a new enough driver is there; if not, `why` says what is missing in one line.
bool cuda_available(std::string* why);

struct CudaOptions {
  bool deterministic = true;    // of attention's backward; all else always is
  bool coalesce_tiling = true;  // false: one tiling of the memory-bound kernels for every shape (tiling.h)
};
// Throws EngineError(device_error) where cuda_available says no.
std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& = {});

}  // namespace assay
