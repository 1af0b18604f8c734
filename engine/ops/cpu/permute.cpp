#include "engine/ops/permute.h"

#include <cstring>

#include "engine/ops/cpu/fp8.h"
#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

// Copies row token_of[r] of `from` (row_bytes each) to row r of `to`; padding rows are filled with `padding`, repeated.
template <class T>
void gather_rows(const int32_t* token_of, int64_t R, const T* from, T* to, int64_t width, T padding) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; ++r) {
    if (token_of[r] < 0) {
      std::fill(to + r * width, to + (r + 1) * width, padding);
    } else {
      std::memcpy(to + r * width, from + token_of[r] * width, static_cast<size_t>(width) * sizeof(T));
    }
  }
}

template <class S>
void scale_rows(const int32_t* token_of, const Tensor& gate, const Tensor& out, int64_t R, int64_t d) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; ++r) {
    if (token_of[r] < 0) continue;  // stays +0 whatever the gate
    const Acc<S> scale = gate.as<Acc<S>>()[r];
    S* row = out.as<S>() + r * d;
#pragma omp simd
    for (int64_t j = 0; j < d; ++j) store(row[j], scale * load(row[j]));
  }
}

void permute_codes(const PermuteArgs& a, int64_t R) {
  const int64_t K = a.x8.codes.dim(a.x8.codes.rank - 1), N = a.x8.codes.numel() / K;
  ASSAY_OP_CHECK(
      "permute",
      a.x8.mode == a.out8.mode && a.x8.codes.dtype == a.out8.codes.dtype && a.x8.mode != ScaleMode::block_128x128,
      std::string("cannot move rows of ") + to_string(a.x8.mode) + " " + a.x8.codes.describe() + " to " +
          to_string(a.out8.mode) + " " + a.out8.codes.describe());
  check_quantized("permute", "x8", a.x8, 1, N, K);
  check_quantized("permute", "out8", a.out8, 1, R, K);
  const int32_t* token_of = a.token_of.as<int32_t>();
  gather_rows<uint8_t>(token_of, R, a.x8.codes.as<uint8_t>(), a.out8.codes.as<uint8_t>(), K, 0);
  const float* scales = a.x8.scales.as<float>();
  if (a.x8.mode == ScaleMode::tensorwise) {
    a.out8.scales.as<float>()[0] = scales[0];
  } else {
    gather_rows<float>(token_of, R, scales, a.out8.scales.as<float>(), scales_per_matrix(a.x8.mode, 1, K), 1.0f);
  }
}

// One row at a time, and a column of out8t with it.
void permute_quantized(const PermuteArgs& a, int64_t R) {
  const int64_t d = a.x.dim(1);
  const DType format = (a.out8 ? a.out8 : a.out8t).codes.dtype;
  const float scale = a.scale.as<float>()[0], inverse = 1.0f / scale;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < R; ++r) {
    const int32_t token = a.token_of.as<int32_t>()[r];
    uint8_t* codes = scratch<uint8_t>(Slot::s0, d);
    if (token < 0) {
      std::fill(codes, codes + d, uint8_t{0});
    } else {
      const float* x = widen_to_float(a.x.slice(token, 1), Slot::operand_a);
      const float gate = a.gate ? a.gate.as<float>()[r] : 1.0f;
      float* row = scratch<float>(Slot::row, d);
      for (int64_t j = 0; j < d; ++j) row[j] = gate * x[j];
      encode(row, d, inverse, format, codes);
    }
    if (a.out8) std::copy(codes, codes + d, a.out8.codes.as<uint8_t>() + r * d);
    if (!a.out8t) continue;
    uint8_t* column = a.out8t.codes.as<uint8_t>() + r;
    for (int64_t j = 0; j < d; ++j) column[j * R] = codes[j];
  }
  if (a.out8) a.out8.scales.as<float>()[0] = scale;
  if (a.out8t) a.out8t.scales.as<float>()[0] = scale;
}

void check_quantizing(const PermuteArgs& a, int64_t R) {
  const char* op = "permute";
  const int64_t d = a.x.dim(1);
  check_tensor(op, "scale", a.scale, DType::f32, {1});
  ASSAY_OP_CHECK(op, a.x.dtype != DType::f64, "FP8 codes are made from f32 or bf16, not " + a.x.describe());
  if (a.gate) check_tensor(op, "gate", a.gate, DType::f32, {R});
  if (a.out8) check_quantized(op, "out8", a.out8, 1, R, d);
  if (a.out8t) check_quantized(op, "out8t", a.out8t, 1, d, R);
  for (const Quantized* q : {&a.out8, &a.out8t}) {
    ASSAY_OP_CHECK(op, !*q || q->mode == ScaleMode::tensorwise,
                   std::string("codes of x are tensorwise, not ") + to_string(q->mode));
  }
  ASSAY_OP_CHECK(op, !a.out8 || !a.out8t || a.out8.codes.dtype == a.out8t.codes.dtype,
                 "out8t " + a.out8t.codes.describe() + " is not a copy of out8 " + a.out8.codes.describe());
}

template <class S>
void combine_body(const CombineArgs& a, int64_t N, int64_t k, int64_t d) {
  using A = Acc<S>;
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < N; ++t) {
    A* sum = scratch<A>(Slot::row, d);
    std::fill(sum, sum + d, A(0));
    for (int64_t j = 0; j < k; ++j) {
      const A weight = a.weights ? a.weights.as<A>()[t * k + j] : A(1);
      const S* y = a.y.as<S>() + a.slot.as<int32_t>()[t * k + j] * d;
#pragma omp simd
      for (int64_t c = 0; c < d; ++c) sum[c] += weight * load(y[c]);
    }
    for (const Tensor* extra : {&a.shared, &a.residual}) {
      if (!*extra) continue;
      const S* from = extra->as<S>() + t * d;
#pragma omp simd
      for (int64_t c = 0; c < d; ++c) sum[c] += load(from[c]);
    }
    store_scaled(sum, A(1), a.out.as<S>() + t * d, d);
  }
}

void check_slots(const char* op, const Tensor& slot, int64_t rows) {
  ASSAY_OP_CHECK(op, slot && slot.rank == 2 && slot.dtype == DType::i32,
                 "slot is " + slot.describe() + ", expected i32[N, k]");
  for (int64_t i = 0; i < slot.numel(); ++i) {
    const int32_t row = slot.as<int32_t>()[i];
    ASSAY_OP_CHECK(
        op, row >= 0 && row < rows,
        "slot " + std::to_string(row) + " is outside the " + std::to_string(rows) + " rows of the permuted buffer");
  }
}

}  // namespace

void permute(const PermuteArgs& a) {
  const int64_t R = a.token_of.numel();
  check_tensor("permute", "token_of", a.token_of, DType::i32, {R});
  const Tensor& source = a.x ? a.x : a.x8.codes;
  ASSAY_OP_CHECK("permute", source && source.rank == 2, "x is " + source.describe() + ", expected [N, d]");
  for (int64_t r = 0; r < R; ++r) {
    const int32_t token = a.token_of.as<int32_t>()[r];
    ASSAY_OP_CHECK(
        "permute", token >= -1 && token < source.dim(0),
        "token_of[" + std::to_string(r) + "] = " + std::to_string(token) + " is outside " + source.describe());
  }
  ASSAY_OP_CHECK("permute", !a.x8 || (!a.x && !a.gate), "codes are moved as they are: no x beside them, and no gate");
  if (a.x8) return permute_codes(a, R);
  if (a.out8 || a.out8t) {
    ASSAY_OP_CHECK("permute", !a.out, "x goes to out, or to out8 and out8t");
    check_quantizing(a, R);
    return permute_quantized(a, R);
  }
  const int64_t d = a.x.dim(1);
  check_tensor("permute", "out", a.out, a.x.dtype, {R, d});
  dispatch("permute", a.x.dtype,
           [&]<class S>(S) { gather_rows<S>(a.token_of.as<int32_t>(), R, a.x.as<S>(), a.out.as<S>(), d, S{}); });
  if (!a.gate) return;
  check_tensor("permute", "gate", a.gate, stat_dtype(a.x.dtype), {R});
  dispatch("permute", a.x.dtype, [&]<class S>(S) { scale_rows<S>(a.token_of.as<int32_t>(), a.gate, a.out, R, d); });
}

void combine(const CombineArgs& a) {
  ASSAY_OP_CHECK("combine", a.y && a.y.rank == 2, "y is " + a.y.describe() + ", expected [R, d]");
  check_slots("combine", a.slot, a.y.dim(0));
  const int64_t N = a.slot.dim(0), k = a.slot.dim(1), d = a.y.dim(1);
  check_tensor("combine", "out", a.out, a.y.dtype, {N, d});
  if (a.weights) check_tensor("combine", "weights", a.weights, stat_dtype(a.y.dtype), {N, k});
  if (a.shared) check_tensor("combine", "shared", a.shared, a.y.dtype, {N, d});
  if (a.residual) check_tensor("combine", "residual", a.residual, a.y.dtype, {N, d});
  dispatch("combine", a.y.dtype, [&]<class S>(S) { combine_body<S>(a, N, k, d); });
}

}  // namespace assay::cpu
