#include "engine/ops/norm.h"
#include "engine/ops/quantize.h"

#include <bit>
#include <cmath>

#include "engine/ops/cpu/fp8.h"
#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

constexpr int64_t block = 128;

void encode_block(const float* x, int64_t stride, int64_t rows, int64_t cols, float scale, DType format,
                  uint8_t* codes) {
  const float inverse = 1.0f / scale;
  for (int64_t r = 0; r < rows; ++r) encode(x + r * stride, cols, inverse, format, codes + r * stride);
}

// amax of the whole matrix; the maximum does not depend on the order.
float matrix_amax(const float* x, int64_t R, int64_t K) {
  float* rows = scratch<float>(Slot::row, R);
#pragma omp parallel for schedule(static) if (R * K > 1 << 15)
  for (int64_t r = 0; r < R; ++r) rows[r] = amax_of(x + r * K, K, 1, K);
  return amax_of(rows, R, 1, R);
}

// One matrix [R, K] into codes and scales. fixed > 0: that scale for every group, else from the group's amax.
void quantize_matrix(const float* x, int64_t R, int64_t K, float fixed, const Quantized& out, int64_t index) {
  const DType format = out.codes.dtype;
  uint8_t* codes = out.codes.as<uint8_t>() + index * R * K;
  float* scales = out.scales.as<float>() + index * scales_per_matrix(out.mode, R, K);
  if (out.mode == ScaleMode::tensorwise) {
    const float scale = fixed > 0 ? fixed : scale_of(matrix_amax(x, R, K), fp8_max(format));
    scales[0] = scale;
#pragma omp parallel for schedule(static) if (R * K > 1 << 15)
    for (int64_t r = 0; r < R; ++r) encode_block(x + r * K, K, 1, K, scale, format, codes + r * K);
    return;
  }
  const int64_t tall = out.mode == ScaleMode::block_128x128 ? block : 1;
  const int64_t wide = out.mode == ScaleMode::rowwise ? K : block;
  const int64_t per_band = (K + wide - 1) / wide;
#pragma omp parallel for schedule(static) if (R * K > 1 << 15)
  for (int64_t band = 0; band < (R + tall - 1) / tall; ++band) {
    const int64_t r = band * tall, rows = std::min(tall, R - r);
    for (int64_t b = 0; b < per_band; ++b) {
      const int64_t c = b * wide, cols = std::min(wide, K - c), at = r * K + c;
      const float scale = fixed > 0 ? fixed : scale_of(amax_of(x + at, K, rows, cols), fp8_max(format));
      scales[band * per_band + b] = scale;
      encode_block(x + at, K, rows, cols, scale, format, codes + at);
    }
  }
}

// to[K, R] = x[R, K]^T, by tiles.
void transpose(const float* x, int64_t R, int64_t K, float* to) {
  constexpr int64_t tile = 32;
#pragma omp parallel for schedule(static) if (R * K > 1 << 15)
  for (int64_t k0 = 0; k0 < K; k0 += tile) {
    for (int64_t r0 = 0; r0 < R; r0 += tile) {
      for (int64_t k = k0; k < std::min(k0 + tile, K); ++k) {
        for (int64_t r = r0; r < std::min(r0 + tile, R); ++r) to[k * R + r] = x[r * K + k];
      }
    }
  }
}

// The scale that does not come from the group: the static one, or the delayed one; 0 = none. Raises amax.
float fixed_scale(const QuantizeArgs& a, const float* x, int64_t R, int64_t K) {
  if (a.static_scale > 0) return a.static_scale;
  if (a.delayed.scale == nullptr) return 0;
  *a.delayed.amax = std::bit_cast<float>(std::max(magnitude(*a.delayed.amax), magnitude(matrix_amax(x, R, K))));
  return *a.delayed.scale > 0 || a.calibrate ? *a.delayed.scale : 1.0f;
}

void check(const QuantizeArgs& a, int64_t groups, int64_t R, int64_t K) {
  const char* op = "quantize";
  ASSAY_OP_CHECK(op, a.x.dtype == DType::f32 || a.x.dtype == DType::bf16,
                 "x is " + a.x.describe() + ", expected f32 or bf16");
  ASSAY_OP_CHECK(op, a.out || a.transposed, "neither out nor transposed is set");
  if (a.out) check_quantized(op, "out", a.out, groups, R, K);
  if (a.transposed) check_quantized(op, "transposed", a.transposed, groups, K, R);
  ASSAY_OP_CHECK(op, (a.delayed.scale == nullptr) == (a.delayed.amax == nullptr), "delayed needs both scale and amax");
  if (a.delayed.scale == nullptr) return;
  const bool tensorwise =
      (!a.out || a.out.mode == ScaleMode::tensorwise) && (!a.transposed || a.transposed.mode == ScaleMode::tensorwise);
  ASSAY_OP_CHECK(op, tensorwise && groups == 1 && a.static_scale <= 0,
                 "a delayed scale is for one tensorwise matrix without static scale, not " + a.x.describe());
}

}  // namespace

void quantize(const QuantizeArgs& a) {
  ASSAY_OP_CHECK("quantize", a.x && (a.x.rank == 2 || a.x.rank == 3) && a.x.numel() > 0,
                 "x is " + a.x.describe() + ", expected [R, K] or [G, R, K]");
  const int64_t groups = a.x.rank == 3 ? a.x.dim(0) : 1;
  const int64_t R = a.x.dim(a.x.rank - 2), K = a.x.dim(a.x.rank - 1);
  check(a, groups, R, K);
  const Tensor flat = a.x.view({groups, R * K});
  for (int64_t g = 0; g < groups; ++g) {
    const float* x = widen_to_float(flat.slice(g, 1), Slot::quantize_in);
    const float fixed = fixed_scale(a, x, R, K);
    if (a.out) quantize_matrix(x, R, K, fixed, a.out, g);
    if (!a.transposed) continue;
    float* turned = scratch<float>(Slot::quantize_transposed, R * K);
    transpose(x, R, K, turned);
    quantize_matrix(turned, K, R, fixed, a.transposed, g);
  }
}

void scale_update(const ScaleUpdateArgs& a) {
  const bool skipped = a.skip != nullptr && *a.skip != 0;
  for (int64_t i = 0; i < a.n; ++i) {
    if (a.amax[i] > 0 && !skipped) a.scale[i] = a.amax[i] * a.margin / a.format_max[i];
    a.amax[i] = 0;
  }
}

void quantize_normed(const Tensor& n, const Quantized& n8, const Quantized& n8t) {
  const Quantized& any = n8 ? n8 : n8t;
  if (!any) return;
  QuantizeArgs args{n, n8, n8t};
  if (any.mode == ScaleMode::tensorwise) args.static_scale = normed_scale(any.codes.dtype, n.dim(n.rank - 1));
  quantize(args);
}

}  // namespace assay::cpu
