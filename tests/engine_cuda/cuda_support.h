// A CUDA op against its CPU twin: arrays are mirrored on the device, both run, outputs are compared.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <limits>

#include "engine/ops/cuda/launch.h"
#include "tests/engine/ops_support.h"

namespace assay::test {

inline bool have_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
#define ASSAY_NEEDS_GPU() \
  if (!::assay::test::have_gpu()) GTEST_SKIP() << "no NVIDIA GPU on this machine"

inline void cuda_ok(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Fills an output with values that no op leaves behind, so that what an op does not write is seen.
inline Array poisoned(Array a) {
  std::memset(a.t().data, 0xA5, a.t().bytes());
  return a;
}
inline Array poisoned(DType dtype, std::initializer_list<int64_t> dims) {
  return poisoned(Array(dtype, dims));
}

// A device copy of an array, as it was when the mirror was made.
class Mirror {
 public:
  Mirror() = default;
  explicit Mirror(const Array& host) : host_(host) {
    if (host.size() == 0 || host.t().data == nullptr) return;
    void* memory = nullptr;
    cuda_ok(cudaMalloc(&memory, host.t().bytes()), "cudaMalloc");
    memory_.reset(memory);
    cuda_ok(cudaMemcpy(memory, host.t().data, host.t().bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Tensor t() const {
    Tensor t = host_.t();
    t.data = memory_.get();
    return t;
  }
  operator Tensor() const { return t(); }
  // What is on the device now; waits for it.
  Array back() const {
    Array a = host_;
    cuda_ok(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    cuda_ok(cudaMemcpy(a.t().data, memory_.get(), a.t().bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return a;
  }

 private:
  struct Free {
    void operator()(void* p) const { cudaFree(p); }
  };
  Array host_;
  std::unique_ptr<void, Free> memory_;
};

struct Fp8Mirror {
  Mirror codes, scales;
  ScaleMode mode;
  explicit Fp8Mirror(const Fp8Array& a) : codes(a.codes), scales(a.scales), mode(a.mode) {}
  operator Quantized() const { return {codes.t(), scales.t(), mode}; }
  Fp8Array back() const { return {codes.back(), scales.back(), mode}; }
};
inline Fp8Array poisoned(Fp8Array a) {
  a.codes = poisoned(a.codes);
  a.scales = poisoned(a.scales);
  return a;
}

// One block of memory for all tests, filled with garbage before each use.
inline cuda::Workspace workspace() {
  static constexpr size_t bytes = 64 << 20;
  static void* memory = [] {
    void* p = nullptr;
    cuda_ok(cudaMalloc(&p, bytes), "cudaMalloc");
    return p;
  }();
  cuda_ok(cudaMemset(memory, 0xA5, bytes), "cudaMemset");
  return {memory, bytes};
}

inline void expect_same(const std::string& what, const Array& got, const Array& want) {
  ASSERT_EQ(got.t().bytes(), want.t().bytes()) << what;
  if (std::memcmp(got.t().data, want.t().data, got.t().bytes()) == 0) return;
  int shown = 0;
  for (int64_t i = 0; i < got.size() && shown < 3; ++i) {
    if (got.get(i) == want.get(i) || (std::isnan(got.get(i)) && std::isnan(want.get(i)))) continue;
    ++shown;
    ADD_FAILURE() << what << " " << got.t().describe() << " seed " << seed() << ": element " << i << " is "
                  << got.get(i) << ", the twin has " << want.get(i);
  }
  if (shown == 0) ADD_FAILURE() << what << " " << got.t().describe() << ": same values, other bits";
}

// The twin sums in another order, so a result may round the other way: no element is off by more than one unit in the
// last place of its dtype plus FP32 noise of `noise` times the tensor's size, and in bf16 few elements are off at all.
inline void expect_close(const std::string& what, const Array& got, const Array& want, double noise = 4e-6) {
  const bool low = got.dtype() == DType::bf16;
  expect_near(what, got, want, low ? std::ldexp(1.001, -7) : noise, noise * rms(want) + 1e-30);
  if (!low || got.size() < 64) return;
  int64_t off = 0;
  for (int64_t i = 0; i < got.size(); ++i) off += got.get(i) != want.get(i);
  EXPECT_LE(static_cast<double>(off), 0.02 * static_cast<double>(got.size()))
      << what << " " << got.t().describe() << " seed " << seed() << ": " << off << " elements round otherwise";
}

inline void expect_same(const std::string& what, const Fp8Array& got, const Fp8Array& want) {
  expect_same(what + " scales", got.scales, want.scales);
  expect_same(what + " codes", got.codes, want.codes);
}

inline std::string shape_text(DType dtype, std::initializer_list<int64_t> dims) {
  return Tensor(nullptr, dtype, dims).describe();
}

}  // namespace assay::test
