// Scratch memory of the ops. All ops of one stream share one block of memory: they run one after the other, and none
// leaves anything in it for another. Passed by value, so that every op starts from the beginning.
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

// Bytes that suffice for every memory-bound op (launch.h) on `tokens` rows: per token, the carried sums of the
// embedding gradients (d / 8), gates and their gradients (8 per head), sorting, routing and maxima; and 64 MiB for what
// does not grow with them, of which the router's partial sums take up to 26.
inline size_t memory_ops_workspace(int64_t tokens, int64_t d, int64_t heads, int64_t top_k) {
  return (size_t{64} << 20) + static_cast<size_t>(tokens * (d / 8 + 10 * heads + 16 * top_k + 64));
}

}  // namespace assay::cuda
