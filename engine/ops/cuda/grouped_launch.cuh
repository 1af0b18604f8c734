// Host side of the products: shapes to descriptors, parameters and a launch. Each .cu file instantiates its family.
#pragma once

#include <string>

#include "engine/ops/cpu/element.h"
#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/device.h"
#include "engine/ops/cuda/grouped_kernel.cuh"
#include "engine/ops/cuda/tensor_map.h"
#include "engine/ops/cuda/wgrad_kernel.cuh"
#include "engine/ops/cuda/workspace.h"
#include "engine/ops/error.h"

namespace assay::cuda {

inline std::string describe(int64_t rows, int64_t n, int64_t k) {
  return "rows " + std::to_string(rows) + ", n " + std::to_string(n) + ", k " + std::to_string(k);
}

// What a product reads and writes. `rows` is all rows of `a` and `out`; b is [groups * n, k], or [groups * k, n]
// MN-major.
struct Product {
  const char* op;
  const void *a, *b;
  void* out;
  const void* hidden = nullptr;
  void* transposed = nullptr;  // [n, rows], of products into codes
  int64_t rows, n, k;
};

// Whether tiles of 192 columns leave less of the last wave idle than tiles of 256: a dense product of few tiles.
inline bool narrow_tiles(const Product& x, const GroupedParams& p) {
  if (p.start != nullptr || p.groups != 1) return false;
  const auto cost = [&](int64_t bn) {
    const int64_t tiles = (x.rows + tile_m - 1) / tile_m * ((x.n + bn - 1) / bn), sms = multiprocessors();
    return (tiles + sms - 1) / sms * bn;
  };
  return cost(192) < cost(256);
}

// p with what the shape and the tiles of C determine.
template <class C>
GroupedParams shape_params(const Product& x, GroupedParams p) {
  p.n = static_cast<int>(x.n);
  p.a_rows = static_cast<int>(x.rows);
  p.rows_first = p.start == nullptr && p.groups == 1 && !C::symmetric && x.n / C::bn > x.rows / tile_m;
  p.k_steps = static_cast<int>((x.k + C::k_per_stage - 1) / C::k_per_stage);
  return p;
}

// `static`, as the other launchers of kernels: nvcc gives every file its own copy of a kernel, and each copy must be
// told of its shared memory once.
template <class C>
static void launch_product(cudaStream_t stream, const Product& x, const GroupedParams& params) {
  constexpr int in_bytes = C::fp8 ? 1 : 2;
  const GroupedParams p = shape_params<C>(x, params);
  if (C::b_mn_major && p.groups > 1 && x.k % C::k_per_stage != 0)
    throw EngineError(FailureReason::plan_error, "batched dgrad needs k to be a multiple of 64", x.op);
  const CUtensorMap a = matrix_map(x.op, x.a, in_bytes, x.rows, x.k, tile_m);
  const CUtensorMap b = C::b_mn_major ? matrix_map(x.op, x.b, 2, p.groups * x.k, x.n, 64)
                                      : matrix_map(x.op, x.b, in_bytes, p.groups * x.n, x.k, C::bn);
  const CUtensorMap out = matrix_map(x.op, x.out, 2, x.rows, x.n, 64);
  const CUtensorMap hidden = C::loads_hidden ? matrix_map(x.op, x.hidden, 2, x.rows, x.n, 64) : out;
  static const bool configured = [] {
    ASSAY_CUDA_CHECK("grouped_gemm",
                     cudaFuncSetAttribute(grouped_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize, C::smem));
    return true;
  }();
  static_cast<void>(configured);
  grouped_kernel<C><<<multiprocessors(), 384, C::smem, stream>>>(a, b, out, hidden, p);
  ASSAY_CUDA_LAUNCHED(x.op, describe(x.rows, x.n, x.k));
}

// The kernels of FP8 operands, each family compiled in the file of its name. `a` is e4m3 or e5m2, b always e4m3.
// grouped_fp8.cu, grouped_fp8_residual.cu: into BF16.
void fp8_product(cudaStream_t, Epilogue, DType a, const Product&, const GroupedParams&);
void fp8_product_residual(cudaStream_t, DType a, const Product&, const GroupedParams&);
// grouped_fp8_promoted.cu: into BF16, the sum promoted; scales tensorwise or rowwise.
void fp8_product_promoted(cudaStream_t, Scales, DType a, const Product&, const GroupedParams&);
// qkv_bf16.cu, qkv_fp8.cu: the packed projection with Epilogue::qk_rope, of e4m3 operands where they are FP8.
void bf16_qkv_product(cudaStream_t, const Product&, const GroupedParams&);
void fp8_qkv_product(cudaStream_t, const Product&, const GroupedParams&);
// Into codes (codes_launch.cuh). grouped_fp8_relu2.cu: relu2 of e4m3 operands into e4m3. grouped_fp8_relu2_grad.cu: out
// has the format of `a`, hidden is e4m3. Product::transposed may be null.
void fp8_relu2_codes(cudaStream_t, const Product&, const GroupedParams&);
void fp8_relu2_grad_codes(cudaStream_t, DType a, const Product&, const GroupedParams&);
// Rowwise and blockwise scales, into BF16: grouped_fp8_rowwise.cu and grouped_fp8_blockwise.cu have the epilogues none
// and relu2 (of e4m3), the files beside them (_hidden.cu) those that load `hidden`.
void fp8_rowwise_product(cudaStream_t, Epilogue, DType a, const Product&, const GroupedParams&);
void fp8_rowwise_product_hidden(cudaStream_t, Epilogue, DType a, const Product&, const GroupedParams&);
void fp8_blockwise_product(cudaStream_t, Epilogue, DType a, const Product&, const GroupedParams&);
void fp8_blockwise_product_hidden(cudaStream_t, Epilogue, DType a, const Product&, const GroupedParams&);
// Columns of a tile of theirs that loads `hidden`: it and out, both BF16, take memory from the stages otherwise.
constexpr int scaled_hidden_columns = 128;

// What the scales of two FP8 operands are together; fails the op where no kernel takes them.
inline Scales scales_of(const char* op, const Quantized& a, const Quantized& b) {
  if (a.mode == ScaleMode::tensorwise && b.mode == ScaleMode::tensorwise) return Scales::tensorwise;
  if (a.mode == ScaleMode::rowwise && b.mode == ScaleMode::rowwise) {
    ASSAY_OP_CHECK(op, reinterpret_cast<uintptr_t>(b.scales.data) % 8 == 0, "scales of b begin at an odd address");
    return Scales::rowwise;
  }
  if (a.mode == ScaleMode::block_1x128 && b.mode == ScaleMode::block_128x128) return Scales::blockwise;
  fail_op(
      op, __FILE__, __LINE__,
      std::string("CUDA products take operands that are both tensorwise, both rowwise, or 1x128 and 128x128; got ") +
          to_string(a.mode) + " and " + to_string(b.mode));
}

inline void fp8_scaled_product(cudaStream_t stream, Scales scales, Epilogue epilogue, DType a, const Product& x,
                               const GroupedParams& p) {
  const bool rowwise = scales == Scales::rowwise;
  if (epilogue == Epilogue::relu2_grad || epilogue == Epilogue::residual)
    return (rowwise ? fp8_rowwise_product_hidden : fp8_blockwise_product_hidden)(stream, epilogue, a, x, p);
  ASSAY_OP_CHECK(x.op, epilogue == Epilogue::none || a == DType::fp8_e4m3, "relu^2 takes e4m3 operands");
  (rowwise ? fp8_rowwise_product : fp8_blockwise_product)(stream, epilogue, a, x, p);
}

// dw [groups, m, n] f32. BF16: a [rows, m], b [rows, n]; FP8: a [m, rows], b [n, rows].
struct WeightGradient {
  const char* op;
  const void *a, *b;
  int64_t rows, m, n;
  int64_t group_rows;  // typical rows of a group, for the choice of splits
};
// wgrad_launch.cuh, instantiated in wgrad_bf16.cu and wgrad_fp8.cu.
void bf16_weight_gradient(cudaStream_t, const WeightGradient&, const WgradParams&, Workspace);
void fp8_weight_gradient(cudaStream_t, DType a, const WeightGradient&, const WgradParams&, Workspace);
// wgrad_fp8_promoted.cu: the sum promoted.
void fp8_weight_gradient_promoted(cudaStream_t, DType a, const WeightGradient&, const WgradParams&, Workspace);

}  // namespace assay::cuda
