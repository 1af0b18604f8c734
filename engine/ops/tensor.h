// A tensor is a view: pointer, element type, row-major contiguous shape. Memory belongs to the arena of the plan.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace assay {

// f64 exists for gradient checks of the CPU backend; bf16 is stored as its upper 16 bits, FP8 as its 8-bit code.
enum class DType : uint8_t { f64, f32, bf16, fp8_e4m3, fp8_e5m2, i32, u8 };

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::f64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    default:
      return 1;
  }
}
const char* to_string(DType);

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<int64_t, 4> shape{};

  Tensor() = default;
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> dims) : data(data), dtype(dtype) {
    for (int64_t d : dims) shape[static_cast<size_t>(rank++)] = d;
  }
  explicit operator bool() const { return data != nullptr; }
  int64_t dim(int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<size_t>(i)];
    return n;
  }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // View of `count` leading-dimension entries from `first`.
  Tensor slice(int64_t first, int64_t count) const;
  // Same memory, other shape with as many elements.
  Tensor view(std::initializer_list<int64_t> dims) const;
  std::string describe() const;  // "bf16[4096, 768]"
};

// How FP8 codes are scaled: value ~ code * scale (scale is the dequantisation multiplier, FP32). For codes [R, K]:
enum class ScaleMode : uint8_t {
  tensorwise,     // scales [1]
  rowwise,        // scales [R]
  block_1x128,    // scales [R, ceil(K/128)]          (activations and gradients of the blockwise recipe)
  block_128x128,  // scales [ceil(R/128), ceil(K/128)] (weights of the blockwise recipe)
};
const char* to_string(ScaleMode);

// An FP8 matrix or a stack of them. codes [R, K] or [G, R, K]; for a stack every scale shape has a leading G.
struct Quantized {
  Tensor codes;
  Tensor scales;
  ScaleMode mode = ScaleMode::tensorwise;
  explicit operator bool() const { return static_cast<bool>(codes); }
  Quantized slice(int64_t group) const;  // one matrix of a stack
};

// The rows of a permuted buffer that belong to each expert: group g owns rows [start[g], start[g] + rows[g]).
// Device memory: no host may need to read them. dynamic: start is the prefix sum of rows. static: start = g * capacity,
// rows = capacity, unused rows hold zeros.
struct Groups {
  const int32_t* start = nullptr;  // [count]
  const int32_t* rows = nullptr;   // [count]
  int count = 0;
};

}  // namespace assay
