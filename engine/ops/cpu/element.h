// What the CPU twins share: element types, dispatch on them, shape checks, scratch memory.
// A twin is templated on the storage type S (double, float, Bf16) and computes in Acc<S>: double for double, else
// float.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "engine/ops/error.h"
#include "engine/ops/lowp.h"
#include "engine/ops/tensor.h"

namespace assay::cpu {

struct Bf16 {
  uint16_t bits;
};

template <class S>
using Acc = std::conditional_t<std::is_same_v<S, double>, double, float>;

inline double load(double x) {
  return x;
}
inline float load(float x) {
  return x;
}
inline float load(Bf16 x) {
  return bf16_to_float(x.bits);
}

inline void store(double& to, double x) {
  to = x;
}
inline void store(float& to, float x) {
  to = x;
}
inline void store(Bf16& to, float x) {
  to.bits = float_to_bf16(x);
}

template <class S>
inline constexpr DType dtype_of = std::is_same_v<S, double>  ? DType::f64
                                  : std::is_same_v<S, float> ? DType::f32
                                                             : DType::bf16;

// The dtype of statistics, scalars and gradients that go with activations of `activation`.
constexpr DType stat_dtype(DType activation) {
  return activation == DType::f64 ? DType::f64 : DType::f32;
}

// Calls f(S{}) for the storage type of `dtype`; fails the op for anything but f64, f32 and bf16.
template <class F>
void dispatch(const char* op, DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(double{});
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(Bf16{});
    default:
      fail_op(op, __FILE__, __LINE__, std::string("cannot work on ") + to_string(dtype));
  }
}

// Requires dtype, the number of elements of `dims` and its last dimension (leading dimensions may be split or merged).
void check_tensor(const char* op, const char* name, const Tensor& t, DType dtype, std::initializer_list<int64_t> dims);
// Requires FP8 codes [rows, cols] (or a stack) and scales of the mode's shape.
void check_quantized(const char* op, const char* name, const Quantized& q, int64_t groups, int64_t rows, int64_t cols);
int64_t scales_per_matrix(ScaleMode mode, int64_t rows, int64_t cols);

// Uninitialised memory for `count` elements. It belongs to the calling thread and slot until the thread asks for the
// same slot again; it is kept between calls, because ops run thousands of times with the same shapes.
enum class Slot {
  operand_a,
  operand_b,
  product,
  partial,
  row,
  quantize_in,
  quantize_transposed,
  s0,
  s1,
  s2,
  s3,
  s4,
  s5,
  s6,
  s7,
  count
};
void* scratch_bytes(Slot slot, size_t bytes);
template <class T>
T* scratch(Slot slot, int64_t count) {
  return static_cast<T*>(scratch_bytes(slot, static_cast<size_t>(count) * sizeof(T)));
}

// The tensor's elements widened to Acc<S>: its own memory when it is already of that type, else the slot's.
const float* widen_to_float(const Tensor& t, Slot slot);  // f32, bf16, FP8 codes without their scales
const double* widen_to_double(const Tensor& t);           // f64
template <class S>
const Acc<S>* widen(const Tensor& t, Slot slot) {
  if constexpr (std::is_same_v<S, double>) {
    return widen_to_double(t);
  } else {
    return widen_to_float(t, slot);
  }
}

}  // namespace assay::cpu
