// FP8 codes in both orientations from one read of x by 128 x 128 tiles. Bytes per element: 2 in, 1 out per orientation;
// tensorwise and rowwise scales of the call's own values need a pass over x before (rowwise in one orientation does
// not).
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/quantize_tile.cuh"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

__device__ __forceinline__ TilePlace place_in_grid() {
  return {blockIdx.z, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x), static_cast<int>(gridDim.y),
          static_cast<int>(gridDim.x)};
}

// The pass before: maxima of matrices, rows and columns, whichever are asked for. Nothing to do once a delayed scale is
// calibrated.
template <class S>
__global__ __launch_bounds__(256) void amax_kernel(Quantize<S> q) {
  if (q.fixed() > 0) return;
  const TilePlace at = place_in_grid();
  const TileValues<S> x(q, at);
  const int64_t row = static_cast<int64_t>(blockIdx.y) * tile + first_row();
  const int column = blockIdx.x * tile + first_column();
  int top = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int amax = x.row_amax(i);
    top = max(top, amax);
    if (q.row_amax != nullptr && threadIdx.x % 16 == 0 && row + i < q.R)
      raise(&q.row_amax[blockIdx.z * q.R + row + i], amax);
  }
  if (q.column_amax != nullptr) {
#pragma unroll
    for (int c = 0; c < vec; ++c) {
      const int amax = max(x.thread_column_amax(c), __shfl_xor_sync(0xFFFFFFFFu, x.thread_column_amax(c), 16));
      if (threadIdx.x % 32 < 16 && column + c < q.K)
        raise(&q.column_amax[static_cast<int64_t>(blockIdx.z) * q.K + column + c], amax);
    }
  }
  if (q.matrix_amax == nullptr) return;
  top = block_max<8>(top);
  if (threadIdx.x == 0) raise(&q.matrix_amax[blockIdx.z], top);
}

template <class S, bool both>
__global__ __launch_bounds__(256, sizeof(S) == 2 ? 3 : 1) void tile_kernel(Quantize<S> q) {
  quantize_tile<both>(q, place_in_grid());
}

// Rowwise scales in one orientation: the row stays in registers, so x is read once.
template <class L, class S>
__global__ __launch_bounds__(128) void row_kernel(const S* x, NormedFp8 to, int64_t R, int K) {
  const int64_t row = L::row();
  Packed<S> v[L::chunks];
#pragma unroll
  for (int c = 0; c < L::chunks; ++c) v[c] = load_or_zero(x + row * K + L::column(c), row < R && L::column(c) < K);
  if (to.e5m2) {
    store_fp8_row<E5m2, L>(to, v, row, K, row < R);
  } else {
    store_fp8_row<E4m3, L>(to, v, row, K, row < R);
  }
}

__global__ void scale_update_kernel(ScaleUpdateArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= a.n) return;
  const bool skipped = a.skip != nullptr && *a.skip != 0;
  if (a.amax[i] > 0 && !skipped) a.scale[i] = a.amax[i] * a.margin / a.format_max[i];
  a.amax[i] = 0;
}

void check_delayed(const char* op, const QuantizeArgs& a, int64_t G) {
  ASSAY_OP_CHECK(op, a.out || a.transposed, "neither out nor transposed is set");
  ASSAY_OP_CHECK(op, (a.delayed.scale == nullptr) == (a.delayed.amax == nullptr), "delayed needs both scale and amax");
  if (a.delayed.scale == nullptr) return;
  const bool tensorwise =
      (!a.out || a.out.mode == ScaleMode::tensorwise) && (!a.transposed || a.transposed.mode == ScaleMode::tensorwise);
  ASSAY_OP_CHECK(op, tensorwise && G == 1 && a.static_scale <= 0,
                 "a delayed scale is for one tensorwise matrix without static scale, not " + a.x.describe());
}

// The maxima that the scales need before any code can be written, zeroed.
template <class S>
bool take_maxima(const char* op, cudaStream_t stream, Quantize<S>& q, const QuantizeArgs& a, int64_t G,
                 Workspace& workspace) {
  if (a.static_scale > 0 || q.uncalibrated > 0) return false;
  const bool matrix =
      (a.out && a.out.mode == ScaleMode::tensorwise) || (a.transposed && a.transposed.mode == ScaleMode::tensorwise);
  const int64_t rows = a.out && a.out.mode == ScaleMode::rowwise ? G * q.R : 0;
  const int64_t columns = a.transposed && a.transposed.mode == ScaleMode::rowwise ? G * q.K : 0;
  const int64_t matrices = matrix ? G : 0, total = matrices + rows + columns;
  if (total == 0) return false;
  int* maxima = workspace.take<int>(op, total);
  ASSAY_CUDA_CHECK(op, cudaMemsetAsync(maxima, 0, static_cast<size_t>(total) * sizeof(int), stream));
  if (matrices > 0) q.matrix_amax = maxima;
  if (rows > 0) q.row_amax = maxima + matrices;
  if (columns > 0) q.column_amax = maxima + matrices + rows;
  return true;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void quantize(cudaStream_t stream, const QuantizeArgs& a, Workspace workspace) {
  const char* op = "quantize";
  ASSAY_OP_CHECK(op, a.x && (a.x.rank == 2 || a.x.rank == 3) && a.x.numel() > 0,
                 "x is " + a.x.describe() + ", expected [R, K] or [G, R, K]");
  const int64_t G = a.x.rank == 3 ? a.x.dim(0) : 1, R = a.x.dim(a.x.rank - 2), K = a.x.dim(a.x.rank - 1);
  check_vectors(op, "x", a.x, K);
  check_delayed(op, a, G);
  const Target out = target_of(op, "out", a.out, G, R, K);
  const Target transposed = target_of(op, "transposed", a.transposed, G, K, R);
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    if (out.mode == ScaleMode::rowwise && transposed.codes == nullptr && a.static_scale <= 0 && K <= max_row) {
      return dispatch_row(op, a.x, K, [&]<class L>(L) {
        row_kernel<L, S><<<ceil_div(G * R, L::rows_per_block), 128, 0, stream>>>(
            a.x.as<S>(), {out.codes, out.scales, out.mode, out.e5m2, 0}, G * R, static_cast<int>(K));
      });
    }
    const dim3 grid(static_cast<unsigned>(ceil_div(K, tile)), static_cast<unsigned>(ceil_div(R, tile)),
                    static_cast<unsigned>(G));
    static_assert(cuda_fp8_limits[RunSize::routed_rows].most == tile * 65535ll);
    ASSAY_CUDA_TAKES(op, cuda_fp8_limits, routed_rows, R);
    ASSAY_OP_CHECK(op, grid.z <= 65535, a.x.describe() + " has too many matrices");
    Quantize<S> q{.x = a.x.as<S>(),
                  .R = R,
                  .K = static_cast<int>(K),
                  .out = out,
                  .transposed = transposed,
                  .static_scale = a.static_scale,
                  .delayed = a.delayed,
                  .uncalibrated = a.delayed.scale != nullptr && !a.calibrate ? 1.0f : 0.0f};
    if (take_maxima(op, stream, q, a, G, workspace)) {
      amax_kernel<S><<<grid, 256, 0, stream>>>(q);
      ASSAY_CUDA_LAUNCHED(op, a.x.describe());
    }
    if (transposed.codes != nullptr) {
      tile_kernel<S, true><<<grid, 256, 0, stream>>>(q);
    } else {
      tile_kernel<S, false><<<grid, 256, 0, stream>>>(q);
    }
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe());
}

void scale_update(cudaStream_t stream, const ScaleUpdateArgs& a) {
  if (a.n == 0) return;
  scale_update_kernel<<<ceil_div(a.n, 256), 256, 0, stream>>>(a);
  ASSAY_CUDA_LAUNCHED("scale_update", std::to_string(a.n) + " scales");
}

}  // namespace assay::cuda
