// FP8 codes of 128 x 128 tiles in both orientations from one read of x: what a block of 256 threads does.
#pragma once

#include "engine/ops/cuda/fp8_tile.cuh"

namespace assay::cuda {

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

// Which tile of which matrix of the stack, and how many tiles a matrix has.
struct TilePlace {
  int64_t matrix;
  int row, column, rows, columns;
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

  __device__ __forceinline__ TileValues(const Quantize<S>& q, const TilePlace& at) {
    const int64_t row = static_cast<int64_t>(at.row) * tile + first_row();
    const int column = at.column * tile + first_column();
    const S* from = q.x + (at.matrix * q.R + row) * q.K + column;
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

// The 16 lanes that share eight rows work out one row's scale each (two lanes per row) and pass 1/scale round:
// divisions would otherwise cost as much as the traffic.
template <class S>
__device__ __forceinline__ void write_out(const Quantize<S>& q, const TilePlace& at, const TileValues<S>& x,
                                          float fixed, int tile_amax) {
  const int64_t row = static_cast<int64_t>(at.row) * tile + first_row();
  const int column = at.column * tile + first_column();
  const int64_t g = at.matrix;
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
    if (live && first_lane) to.scales[(g * q.R + row + my_row) * at.columns + at.column] = scale;
  } else if (to.mode == ScaleMode::rowwise) {
    if (!(fixed > 0) && live) scale = to.scale(q.row_amax[g * q.R + row + my_row]);
    if (live && first_lane && at.column == 0) to.scales[g * q.R + row + my_row] = scale;
  } else if (to.mode == ScaleMode::block_128x128) {
    if (!(fixed > 0)) scale = to.scale(tile_amax);
    if (threadIdx.x == 0) to.scales[(g * at.rows + at.row) * at.columns + at.column] = scale;
  } else {
    if (!(fixed > 0)) scale = to.scale(q.matrix_amax[g]);
    if (threadIdx.x == 0 && at.column == 0 && at.row == 0) to.scales[g] = scale;
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
__device__ __forceinline__ void stage_transposed(const Quantize<S>& q, const TilePlace& at, const TileValues<S>& x,
                                                 float fixed, int tile_amax, int* column_amax, float* inverses,
                                                 uint2* staged) {
  const int64_t g = at.matrix;
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
    const int column = at.column * tile + threadIdx.x;
    const bool live = column < q.K;
    float scale = fixed;
    if (to.mode == ScaleMode::block_1x128) {
      if (!(fixed > 0)) scale = to.scale(column_amax[threadIdx.x]);
      if (live) to.scales[(g * q.K + column) * at.rows + at.row] = scale;
    } else if (to.mode == ScaleMode::rowwise) {
      if (!(fixed > 0) && live) scale = to.scale(q.column_amax[g * q.K + column]);
      if (live && at.row == 0) to.scales[g * q.K + column] = scale;
    } else if (to.mode == ScaleMode::block_128x128) {
      if (!(fixed > 0)) scale = to.scale(tile_amax);
      if (threadIdx.x == 0) to.scales[(g * at.columns + at.column) * at.rows + at.row] = scale;
    } else {
      if (!(fixed > 0)) scale = to.scale(q.matrix_amax[g]);
      if (column == 0 && at.row == 0) to.scales[g] = scale;
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

__device__ __forceinline__ void write_transposed(uint8_t* codes, const TilePlace& at, int64_t R, int K,
                                                 const uint2* staged) {
  const int64_t first = static_cast<int64_t>(at.row) * tile;
  for (int s = threadIdx.x; s < tile * 16; s += 256) {
    const int c = s / 16, slot = s % 16, column = at.column * tile + c;
    const int64_t row = first + slot * 8;
    if (column >= K || row >= R) continue;
    const uint2 eight = staged[c * 16 + (slot ^ c / vec)];
    uint8_t* to = codes + (at.matrix * K + column) * R + row;
    if (R % 8 == 0) {
      *reinterpret_cast<uint2*>(to) = eight;
      continue;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (row + i < R) to[i] = static_cast<uint8_t>((i < 4 ? eight.x : eight.y) >> i % 4 * 8);
  }
}

// One tile, by a block of 256 threads.
template <bool both, class S>
__device__ __forceinline__ void quantize_tile(const Quantize<S>& q, const TilePlace& at) {
  const TileValues<S> x(q, at);
  const float fixed = q.fixed();
  int tile_amax = 0;
  if (q.delayed.amax != nullptr || q.out.mode == ScaleMode::block_128x128 ||
      q.transposed.mode == ScaleMode::block_128x128) {
#pragma unroll
    for (int i = 0; i < 8; ++i) tile_amax = max(tile_amax, x.thread_row_amax(i));
    tile_amax = block_max<8>(tile_amax);
    if (q.delayed.amax != nullptr && threadIdx.x == 0) raise(reinterpret_cast<int*>(q.delayed.amax), tile_amax);
  }
  if (q.out.codes != nullptr) write_out(q, at, x, fixed, tile_amax);
  if constexpr (both) {
    __shared__ uint2 staged[tile * 16];
    __shared__ int column_amax[tile];
    __shared__ float inverses[tile];
    stage_transposed(q, at, x, fixed, tile_amax, column_amax, inverses, staged);
    __syncthreads();
    write_transposed(q.transposed.codes, at, q.R, q.K, staged);
  }
}

// Host: where the codes of a stack go.
inline Target target_of(const char* op, const char* name, const Quantized& q, int64_t G, int64_t rows,
                        int64_t columns) {
  if (!q) return {};
  check_quantized(op, name, q, G, rows, columns);
  ASSAY_OP_CHECK(op, reinterpret_cast<uintptr_t>(q.codes.data) % 8 == 0,
                 std::string(name) + " begins at an odd address");
  return {q.codes.as<uint8_t>(), q.scales.as<float>(), q.mode, q.codes.dtype == DType::fp8_e5m2};
}

}  // namespace assay::cuda
