#include "engine/ops/cpu/element.h"

#include <array>
#include <memory>
#include <new>

namespace assay::cpu {
namespace {

struct FreeAligned {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};
struct Buffer {
  std::unique_ptr<std::byte, FreeAligned> memory;
  size_t bytes = 0;
};

}  // namespace

void* scratch_bytes(Slot slot, size_t bytes) {
  thread_local std::array<Buffer, static_cast<size_t>(Slot::count)> buffers;
  Buffer& buffer = buffers[static_cast<size_t>(slot)];
  if (buffer.bytes < bytes || !buffer.memory) {
    buffer.memory.reset();
    buffer.bytes = 0;
    buffer.memory.reset(static_cast<std::byte*>(::operator new (std::max<size_t>(bytes, 64), std::align_val_t{64})));
    buffer.bytes = bytes;
  }
  return buffer.memory.get();
}

void check_tensor(const char* op, const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> dims) {
  const Tensor expected(nullptr, dtype, dims);
  const int64_t last = expected.rank > 1 ? expected.dim(expected.rank - 1) : -1;
  const bool fits = t && t.dtype == dtype && t.numel() == expected.numel() &&
                    (last < 0 || (t.rank > 0 && (t.dim(t.rank - 1) == last || t.numel() == 0)));
  ASSAY_OP_CHECK(op, fits,
                 std::string(name) + " is " + (t ? t.describe() : "empty") + ", expected " + expected.describe());
}

int64_t scales_per_matrix(ScaleMode mode, int64_t rows, int64_t cols) {
  switch (mode) {
    case ScaleMode::tensorwise:
      return 1;
    case ScaleMode::rowwise:
      return rows;
    case ScaleMode::block_1x128:
      return rows * ((cols + 127) / 128);
    case ScaleMode::block_128x128:
      return ((rows + 127) / 128) * ((cols + 127) / 128);
  }
  return 0;
}

void check_quantized(const char* op, const char* name, const Quantized& q, int64_t groups, int64_t rows, int64_t cols) {
  const bool fp8 = q.codes.dtype == DType::fp8_e4m3 || q.codes.dtype == DType::fp8_e5m2;
  ASSAY_OP_CHECK(op, fp8, std::string(name) + " has codes " + q.codes.describe() + ", expected FP8");
  check_tensor(op, name, q.codes, q.codes.dtype, {groups * rows, cols});
  const int64_t scales = groups * scales_per_matrix(q.mode, rows, cols);
  ASSAY_OP_CHECK(op, q.scales && q.scales.dtype == DType::f32 && q.scales.numel() == scales,
                 std::string(name) + " (" + to_string(q.mode) + ", codes " + q.codes.describe() + ") has scales " +
                     q.scales.describe() + ", expected " + std::to_string(scales) + " of f32");
}

const double* widen_to_double(const Tensor& t) {
  ASSAY_OP_CHECK("widen", t.dtype == DType::f64, t.describe() + " is not f64");
  return t.as<double>();
}

const float* widen_to_float(const Tensor& t, Slot slot) {
  if (t.dtype == DType::f32) return t.as<float>();
  const int64_t n = t.numel();
  float* out = scratch<float>(slot, n);
  if (t.dtype == DType::bf16) {
    const uint16_t* in = t.as<uint16_t>();
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
    for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_float(in[i]);
    return out;
  }
  ASSAY_OP_CHECK("widen", t.dtype == DType::fp8_e4m3 || t.dtype == DType::fp8_e5m2,
                 t.describe() + " is not a float type");
  const float* values = (t.dtype == DType::fp8_e4m3 ? lowp_detail::e4m3_values : lowp_detail::e5m2_values).data();
  const uint8_t* in = t.as<uint8_t>();
#pragma omp parallel for schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) out[i] = values[in[i]];
  return out;
}

}  // namespace assay::cpu
