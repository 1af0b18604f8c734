// Scratch memory of the ops. All ops of one stream share one block of memory: they run one after the other, and none
// leaves anything in it for another. Passed by value, so that every op starts from the beginning. What they need at
// most is worked out in engine/plan/backend_check.cpp, before a run is queued.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/ops/error.h"

namespace assay::cuda {

class Workspace {
 public:
  // memory: device, 256-byte aligned, owned by the backend and as long-lived as it.
  Workspace(void* memory, size_t bytes) : memory_(static_cast<std::byte*>(memory)), bytes_(bytes) {}

  // The next `count` elements, 256-byte aligned, not initialised.
  template <class T>
  T* take(const char* op, int64_t count) {
    const size_t needed = (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    ASSAY_OP_CHECK(
        op, used_ + needed <= bytes_,
        "needs " + std::to_string(used_ + needed) + " bytes of workspace, there are " + std::to_string(bytes_));
    T* taken = reinterpret_cast<T*>(memory_ + used_);
    used_ += needed;
    return taken;
  }

 private:
  std::byte* memory_;
  size_t bytes_;
  size_t used_ = 0;
};

}  // namespace assay::cuda
