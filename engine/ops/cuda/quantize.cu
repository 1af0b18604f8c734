// FP8 codes in both orientations from one read of x by 128 x 128 tiles. Bytes per element: 2 in, 1 out per orientation;
// tensorwise and rowwise scales of the call's own values need a pass over x before (rowwise in one orientation does
// not).
#include "engine/ops/cuda/fp8_tile.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/rows.cuh"

namespace assay::cuda {
namespace {

constexpr int tile = 128;

struct Target {
  uint8_t* codes = nullptr;
  float* scales = nullptr;
  ScaleMode mode = ScaleMode::tensorwise;
  bool e5m2 = false;

  __device__ __forceinline__ float scale(int amax) const {
    return scale_of(__int_as_float(amax), e5m2 ? E5m2::max : E4m3::max);
  }
  __device__ __forceinline__ uint2 encode8(const float (&x)[vec], float inverse) const {
    return e5m2 ? encode<E5m2>(x, inverse) : encode<E4m3>(x, inverse);
  }
};

template <class S>
struct Quantize {
  const S* x;
  int64_t R;
  int K;
  Target out, transposed;
  float static_scale;    // > 0: the scale of everything
  DelayedScale delayed;  // may be null
  float uncalibrated;    // what a delayed scale of 0 stands for; 0: that of x
  // Bits of the maxima of the pass before, where a scale needs them: [G], [G, R], [G, K].
  int *matrix_amax = nullptr, *row_amax = nullptr, *column_amax = nullptr;

  // The scale that does not come from x; 0 = none.
  __device__ __forceinline__ float fixed() const {
    if (static_scale > 0) return static_scale;
    if (delayed.scale == nullptr) return 0;
    return *delayed.scale > 0 ? *delayed.scale : uncalibrated;
  }
};

// A thread of the tile: rows first_row() .. + 7, columns first_column() .. + 7; 16 lanes share the rows.
__device__ __forceinline__ int first_row() {
  return threadIdx.x / 16 * 8;
}
__device__ __forceinline__ int first_column() {
  return threadIdx.x % 16 * vec;
}

template <class S>
struct TileValues {
  Packed<S> rows[8];

  __device__ __forceinline__ explicit TileValues(const Quantize<S>& q) {
    const int64_t row = static_cast<int64_t>(blockIdx.y) * tile + first_row();
    const int column = blockIdx.x * tile + first_column();
    const S* from = q.x + (blockIdx.z * q.R + row) * q.K + column;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      rows[i] = load_or_zero(from + i * static_cast<int64_t>(q.K), row + i < q.R && column < q.K);
  }
  __device__ __forceinline__ int thread_row_amax(int i) const {
    float x[vec];
    unpack(rows[i], x);
    return amax_of(x, 0);
  }
  __device__ __forceinline__ int row_amax(int i) const {
    return warp_max<16>(thread_row_amax(i));
  }
  __device__ __forceinline__ int thread_column_amax(int c) const {
    int amax = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) amax = max(amax, magnitude(rows[i].get(c)));
    return amax;
  }
};

// The pass before: maxima of matrices, rows and columns, whichever are asked for. Nothing to do once a delayed scale is
// calibrated.
template <class S>
__global__ __launch_bounds__(256) void amax_kernel(Quantize<S> q) {
  if (q.fixed() > 0) return;
  const TileValues<S> x(q);
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

// The 16 lanes that share eight rows work out one row's scale each (two lanes per row) and pass 1/scale round:
// divisions would otherwise cost as much as the traffic.
template <class S>
__device__ __forceinline__ void write_out(const Quantize<S>& q, const TileValues<S>& x, float fixed, int tile_amax) {
  const int64_t row = static_cast<int64_t>(blockIdx.y) * tile + first_row();
  const int column = blockIdx.x * tile + first_column();
  const int64_t g = blockIdx.z;
  const Target& to = q.out;
  const int my_row = threadIdx.x % 8;
  const bool live = row + my_row < q.R, first_lane = threadIdx.x % 16 < 8;
  float scale = fixed;
  if (to.mode == ScaleMode::block_1x128) {
    int amax = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int of_row = x.row_amax(i);
      amax = my_row == i ? of_row : amax;
    }
    if (!(fixed > 0)) scale = to.scale(amax);
    if (live && first_lane) to.scales[(g * q.R + row + my_row) * gridDim.x + blockIdx.x] = scale;
  } else if (to.mode == ScaleMode::rowwise) {
    if (!(fixed > 0) && live) scale = to.scale(q.row_amax[g * q.R + row + my_row]);
    if (live && first_lane && blockIdx.x == 0) to.scales[g * q.R + row + my_row] = scale;
  } else if (to.mode == ScaleMode::block_128x128) {
    if (!(fixed > 0)) scale = to.scale(tile_amax);
    if (threadIdx.x == 0) to.scales[(g * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = scale;
  } else {
    if (!(fixed > 0)) scale = to.scale(q.matrix_amax[g]);
    if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) to.scales[g] = scale;
  }
  const float inverse = 1.0f / scale;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float of_row = __shfl_sync(0xFFFFFFFFu, inverse, i, 16);
    if (row + i >= q.R || column >= q.K) continue;
    float v[vec];
    unpack(x.rows[i], v);
    *reinterpret_cast<uint2*>(to.codes + (g * q.R + row + i) * q.K + column) = to.encode8(v, of_row);
  }
}

// Codes of the transposed tile into shared memory: [128 columns][16 slots of 8 rows], the slots permuted by column so
// that the lanes of a warp meet different banks.
template <class S>
__device__ __forceinline__ void stage_transposed(const Quantize<S>& q, const TileValues<S>& x, float fixed,
                                                 int tile_amax, int* column_amax, float* inverses, uint2* staged) {
  const int64_t g = blockIdx.z;
  const Target& to = q.transposed;
  if (to.mode == ScaleMode::block_1x128 && !(fixed > 0)) {
    if (threadIdx.x < tile) column_amax[threadIdx.x] = 0;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < vec; ++c) {
      const int amax = x.thread_column_amax(c), pair = max(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, 16));
      if (threadIdx.x % 32 < 16) atomicMax(&column_amax[first_column() + c], pair);
    }
    __syncthreads();
  }
  if (threadIdx.x < tile) {  // a thread per column of the tile
    const int column = blockIdx.x * tile + threadIdx.x;
    const bool live = column < q.K;
    float scale = fixed;
    if (to.mode == ScaleMode::block_1x128) {
      if (!(fixed > 0)) scale = to.scale(column_amax[threadIdx.x]);
      if (live) to.scales[(g * q.K + column) * gridDim.y + blockIdx.y] = scale;
    } else if (to.mode == ScaleMode::rowwise) {
      if (!(fixed > 0) && live) scale = to.scale(q.column_amax[g * q.K + column]);
      if (live && blockIdx.y == 0) to.scales[g * q.K + column] = scale;
    } else if (to.mode == ScaleMode::block_128x128) {
      if (!(fixed > 0)) scale = to.scale(tile_amax);
      if (threadIdx.x == 0) to.scales[(g * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y] = scale;
    } else {
      if (!(fixed > 0)) scale = to.scale(q.matrix_amax[g]);
      if (column == 0 && blockIdx.y == 0) to.scales[g] = scale;
    }
    inverses[threadIdx.x] = 1.0f / scale;
  }
  __syncthreads();
#pragma unroll
  for (int c = 0; c < vec; ++c) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = x.rows[i].get(c);
    staged[(first_column() + c) * 16 + (threadIdx.x / 16 ^ threadIdx.x % 16)] =
        to.encode8(v, inverses[first_column() + c]);
  }
}

__device__ __forceinline__ void write_transposed(uint8_t* codes, int64_t R, int K, const uint2* staged) {
  const int64_t first = static_cast<int64_t>(blockIdx.y) * tile;
  for (int s = threadIdx.x; s < tile * 16; s += 256) {
    const int c = s / 16, slot = s % 16, column = blockIdx.x * tile + c;
    const int64_t row = first + slot * 8;
    if (column >= K || row >= R) continue;
    const uint2 eight = staged[c * 16 + (slot ^ c / vec)];
    uint8_t* to = codes + (static_cast<int64_t>(blockIdx.z) * K + column) * R + row;
    if (R % 8 == 0) {
      *reinterpret_cast<uint2*>(to) = eight;
      continue;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (row + i < R) to[i] = static_cast<uint8_t>((i < 4 ? eight.x : eight.y) >> i % 4 * 8);
  }
}

template <class S, bool both>
__global__ __launch_bounds__(256, sizeof(S) == 2 ? 3 : 1) void tile_kernel(Quantize<S> q) {
  const TileValues<S> x(q);
  const float fixed = q.fixed();
  int tile_amax = 0;
  if (q.delayed.amax != nullptr || q.out.mode == ScaleMode::block_128x128 ||
      q.transposed.mode == ScaleMode::block_128x128) {
#pragma unroll
    for (int i = 0; i < 8; ++i) tile_amax = max(tile_amax, x.thread_row_amax(i));
    tile_amax = block_max<8>(tile_amax);
    if (q.delayed.amax != nullptr && threadIdx.x == 0) raise(reinterpret_cast<int*>(q.delayed.amax), tile_amax);
  }
  if (q.out.codes != nullptr) write_out(q, x, fixed, tile_amax);
  if constexpr (both) {
    __shared__ uint2 staged[tile * 16];
    __shared__ int column_amax[tile];
    __shared__ float inverses[tile];
    stage_transposed(q, x, fixed, tile_amax, column_amax, inverses, staged);
    __syncthreads();
    write_transposed(q.transposed.codes, q.R, q.K, staged);
  }
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

Target target_of(const char* op, const char* name, const Quantized& q, int64_t G, int64_t rows, int64_t columns) {
  if (!q) return {};
  check_quantized(op, name, q, G, rows, columns);
  ASSAY_OP_CHECK(op, reinterpret_cast<uintptr_t>(q.codes.data) % 8 == 0,
                 std::string(name) + " begins at an odd address");
  return {q.codes.as<uint8_t>(), q.scales.as<float>(), q.mode, q.codes.dtype == DType::fp8_e5m2};
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
    ASSAY_OP_CHECK(op, grid.y <= 65535 && grid.z <= 65535, a.x.describe() + " has too many rows");
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
