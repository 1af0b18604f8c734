// What launches ask of the device they go to.
#pragma once

#include "engine/ops/cuda/check.h"

namespace assay::cuda {

inline int multiprocessors() {
  static const int count = [] {
    int device = 0, n = 0;
    ASSAY_CUDA_CHECK("device", cudaGetDevice(&device));
    ASSAY_CUDA_CHECK("device", cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
    return n;
  }();
  return count;
}

}  // namespace assay::cuda
