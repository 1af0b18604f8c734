// A CUDA call that fails becomes EngineError(device_error) that names op, call, place and shape.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "engine/ops/error.h"
#include "spec/backend_limits.h"

namespace assay::cuda {

// Launches of this process so far (OpsCounters::launches). One thread drives the device.
inline int64_t launches = 0;

[[noreturn]] inline void fail_cuda(const char* op, const char* file, int line, cudaError_t error,
                                   const std::string& what) {
  const std::string path(file);
  const size_t slash = path.rfind("engine/");
  throw EngineError(FailureReason::device_error,
                    std::string(op) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ") at " +
                        (slash == std::string::npos ? path : path.substr(slash)) + ":" + std::to_string(line) +
                        (what.empty() ? "" : ", " + what),
                    op);
}

}  // namespace assay::cuda

// ASSAY_CUDA_CHECK(op, call[, shape]); the shape is a string, evaluated only when the call failed.
#define ASSAY_CUDA_CHECK(op, call, ...)                                                        \
  do {                                                                                         \
    const cudaError_t assay_error = (call);                                                    \
    if (assay_error != cudaSuccess)                                                            \
      ::assay::cuda::fail_cuda(op, __FILE__, __LINE__, assay_error, std::string(__VA_ARGS__)); \
  } while (0)

// After every kernel launch: ASSAY_CUDA_LAUNCHED(op[, shape]).
#define ASSAY_CUDA_LAUNCHED(op, ...)                                     \
  do {                                                                   \
    ++::assay::cuda::launches;                                           \
    ASSAY_CUDA_CHECK(op, cudaGetLastError() __VA_OPT__(, ) __VA_ARGS__); \
  } while (0)

// ASSAY_CUDA_TAKES(op, cuda_limits, experts, E): refuses what is beyond the backend's limit, in the words of the plan.
#define ASSAY_CUDA_TAKES(op, backend, size, value) \
  ASSAY_OP_CHECK(op, (backend)[RunSize::size].takes(value), refusal(backend, RunSize::size, value))
