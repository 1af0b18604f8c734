// The passes of Muon over single matrices. Memory-bound: bytes are counted at each. Compiled without contraction into
// FMA, as the twin is.
#include "engine/ops/cuda/muon_device.cuh"

namespace assay::cuda {
namespace {

using namespace muon_device;

constexpr int tile = 64;  // rows and columns that a block works on at a time

// A 64 x 64 tile in which thread (q, t) holds rows 4q..4q+3 and columns 4t..4t+3, and its transpose in shared memory:
// row c holds 64 values in 16 units of four, unit q at q ^ (c / 4), so that neither side meets a bank twice.
struct TransposedTile {
  alignas(16) uint2 units[tile * 16];

  __device__ __forceinline__ uint2& unit(int t, int j, int q) { return units[(4 * t + j) * 16 + (q ^ t)]; }
  // Units 2p and 2p + 1 of row c, which lie in one 16-byte word, swapped where c / 4 is odd.
  __device__ __forceinline__ uint4& pair(int c, int p) { return reinterpret_cast<uint4*>(units)[c * 8 + (p ^ c / 8)]; }
  static __device__ __forceinline__ uint4 ordered(int c, uint4 v) {
    return c / 4 % 2 == 0 ? v : make_uint4(v.z, v.w, v.x, v.y);
  }
};

__device__ __forceinline__ float4 load4(const float* p, bool valid) {
  return valid ? *reinterpret_cast<const float4*>(p) : make_float4(0, 0, 0, 0);
}
__device__ __forceinline__ float bf16_value(uint32_t pair, int i) {
  return __uint_as_float(i == 0 ? pair << 16 : pair & 0xFFFF0000u);
}
__device__ __forceinline__ uint32_t bf16_pair(float lo, float hi) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(lo, hi);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
// Reads grad and momentum, writes momentum and Y: 14 bytes an element. A block does 64 rows of X, so that it has their
// sums of squares. Y beyond R and C is left to `normalise`.
template <bool transposed>
__global__ __launch_bounds__(threads) void momentum_kernel(const __grid_constant__ MuonChunk c, MuonFactors f) {
  if (skipped(f)) return;
  __shared__ TransposedTile turned;
  const Matrix m = find_matrix(c, blockIdx.y);
  bf16* y = find_y(c, blockIdx.y);
  const int t = threadIdx.x % 16, q = threadIdx.x / 16;
  const int row0 = blockIdx.x * tile, row = row0 + 4 * q;
  double squares[4] = {};
  for (int column0 = 0; column0 < c.columns; column0 += tile) {
    const int column = column0 + 4 * t;
    float4 g[4], v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool valid = row + i < c.rows && column < c.columns;
      const int64_t at = static_cast<int64_t>(row + i) * c.columns + column;
      g[i] = load4(m.grad + at, valid);
      v[i] = load4(m.momentum + at, valid);
    }
    uint2 x[4];  // bf16(g), four columns a row
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i].x = bf16_pair(nesterov(g[i].x, v[i].x, f), nesterov(g[i].y, v[i].y, f));
      x[i].y = bf16_pair(nesterov(g[i].z, v[i].z, f), nesterov(g[i].w, v[i].w, f));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const double value = bf16_value(j < 2 ? x[i].x : x[i].y, j % 2);
        squares[i] = fma(value, value, squares[i]);
      }
      if (row + i >= c.rows || column >= c.columns) continue;
      const int64_t at = static_cast<int64_t>(row + i) * c.columns + column;
      *reinterpret_cast<float4*>(m.momentum + at) = v[i];
      if constexpr (!transposed)
        *reinterpret_cast<uint2*>(y + static_cast<int64_t>(row + i) * c.l_padded + column) = x[i];
    }
    if constexpr (transposed) {
      __syncthreads();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t pick = j % 2 == 0 ? 0x5410 : 0x7632;
        turned.unit(t, j, q) = j < 2 ? make_uint2(__byte_perm(x[0].x, x[1].x, pick), __byte_perm(x[2].x, x[3].x, pick))
                                     : make_uint2(__byte_perm(x[0].y, x[1].y, pick), __byte_perm(x[2].y, x[3].y, pick));
      }
      __syncthreads();
      const int p = threadIdx.x % 8;
#pragma unroll
      for (int line = threadIdx.x / 8; line < tile; line += threads / 8) {
        if (column0 + line >= c.columns || row0 + 8 * p >= c.l_padded) continue;
        *reinterpret_cast<uint4*>(y + static_cast<int64_t>(column0 + line) * c.l_padded + row0 + 8 * p) =
            TransposedTile::ordered(line, turned.pair(line, p));
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const double sum = warp_sum<16>(squares[i]);
    if (t == 0 && row + i < c.rows) c.row_squares[static_cast<int64_t>(blockIdx.y) * c.rows + row + i] = sum;
  }
}

__global__ __launch_bounds__(threads) void row_factor_kernel(const __grid_constant__ MuonChunk c) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * c.rows;
  const float scale = equilibrate(c.row_squares + first, c.row_factor + first, c.rows);
  if (threadIdx.x == 0) c.scale[blockIdx.x] = scale;
}

// Y in place, 4 bytes an element; zeros in the padding. A block does 64 rows and 256 columns of Y.
template <bool transposed>
__global__ __launch_bounds__(threads) void normalise_kernel(const __grid_constant__ MuonChunk c) {
  bf16* y = find_y(c, blockIdx.z);
  const float* factors = c.row_factor + static_cast<int64_t>(blockIdx.z) * c.rows;
  const float scale = c.scale[blockIdx.z];
  const int column = (blockIdx.x * 32 + threadIdx.x % 32) * vec;
  if (column >= c.l_padded) return;
  float factor[vec] = {};
  if constexpr (transposed) {
#pragma unroll
    for (int i = 0; i < vec; ++i) factor[i] = column + i < c.l ? factors[column + i] : 0.0f;
  }
  const int first = blockIdx.y * tile + threadIdx.x / 32;
#pragma unroll 4
  for (int row = first; row < first + tile; row += threads / 32) {
    float x[vec];
    bf16* at = y + static_cast<int64_t>(row) * c.l_padded + column;
    unpack(load_or_zero(at, row < c.s), x);
    const float of_row = transposed || row >= c.s ? 0.0f : factors[row];
#pragma unroll
    for (int i = 0; i < vec; ++i)
      x[i] = row < c.s && column + i < c.l ? round_to<bf16>(x[i] * (transposed ? factor[i] : of_row)) * scale : 0.0f;
    store(at, pack<bf16>(x));
  }
}

// Reads Y: 2 bytes an element. A block does 64 columns of Y: 8 threads beside each other, 32 rows at a time.
__global__ __launch_bounds__(threads) void column_squares_kernel(const __grid_constant__ MuonChunk c) {
  __shared__ double parts[threads / 8][tile + 2];
  const bf16* y = find_y(c, blockIdx.y);
  const int lane = threadIdx.x % 8, column = blockIdx.x * tile + lane * vec;
  double squares[vec] = {};
#pragma unroll 4
  for (int row = threadIdx.x / 8; row < c.s; row += threads / 8) {
    float x[vec];
    unpack(load(y + static_cast<int64_t>(row) * c.l_padded + column), x);
#pragma unroll
    for (int i = 0; i < vec; ++i) squares[i] = fma(static_cast<double>(x[i]), static_cast<double>(x[i]), squares[i]);
  }
#pragma unroll
  for (int i = 0; i < vec; ++i) parts[threadIdx.x / 8][lane * vec + i] = squares[i];
  __syncthreads();
  const int mine = blockIdx.x * tile + threadIdx.x;
  if (threadIdx.x >= tile || mine >= c.l) return;
  double sum = 0;
#pragma unroll
  for (int i = 0; i < threads / 8; ++i) sum += parts[i][threadIdx.x];
  c.column_squares[static_cast<int64_t>(blockIdx.y) * c.l + mine] = sum;
}

__global__ __launch_bounds__(threads) void second_moment_kernel(const __grid_constant__ MuonChunk c, MuonFactors f) {
  if (skipped(f)) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * c.l;
  const float scale = second_moments(c.column_squares + first, find_matrix(c, blockIdx.x).second_moment,
                                     c.column_factor + first, c.s, c.l, f);
  if (threadIdx.x == 0) c.scale[blockIdx.x] = scale;
}

// Reads Y and param, writes param: 10 bytes an element. A block does 64 rows of param.
template <bool transposed>
__global__ __launch_bounds__(threads) void update_kernel(const __grid_constant__ MuonChunk c, MuonFactors f) {
  if (skipped(f)) return;
  __shared__ TransposedTile turned;
  const Matrix m = find_matrix(c, blockIdx.y);
  const bf16* y = find_y(c, blockIdx.y);
  const float* factors = c.column_factor + static_cast<int64_t>(blockIdx.y) * c.l;
  const float scale = c.scale[blockIdx.y];
  const int t = threadIdx.x % 16, q = threadIdx.x / 16;
  const int row0 = blockIdx.x * tile, row = row0 + 4 * q;
  float factor[4] = {};  // of four rows if transposed, else of four columns
  if constexpr (transposed) {
#pragma unroll
    for (int i = 0; i < 4; ++i) factor[i] = row + i < c.rows ? factors[row + i] : 0.0f;
  }
  for (int column0 = 0; column0 < c.columns; column0 += tile) {
    const int column = column0 + 4 * t;
    float4 p[4];
    uint2 x[4] = {};  // four rows a column if transposed, else four columns a row
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool valid = row + i < c.rows && column < c.columns;
      p[i] = load4(m.param + static_cast<int64_t>(row + i) * c.columns + column, valid);
      if (!transposed && valid)
        x[i] = *reinterpret_cast<const uint2*>(y + static_cast<int64_t>(row + i) * c.l_padded + column);
    }
    if constexpr (transposed) {
      uint4 words[tile / (threads / 8)];
      const int pair = threadIdx.x % 8;
#pragma unroll
      for (int i = 0; i < tile / (threads / 8); ++i) {
        const int line = threadIdx.x / 8 + i * (threads / 8);
        const bool valid = column0 + line < c.columns && row0 + 8 * pair < c.l_padded;
        words[i] = valid ? *reinterpret_cast<const uint4*>(y + static_cast<int64_t>(column0 + line) * c.l_padded +
                                                           row0 + 8 * pair)
                         : make_uint4(0, 0, 0, 0);
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < tile / (threads / 8); ++i) {
        const int line = threadIdx.x / 8 + i * (threads / 8);
        turned.pair(line, pair) = TransposedTile::ordered(line, words[i]);
      }
      __syncthreads();
#pragma unroll
      for (int j = 0; j < 4; ++j) x[j] = turned.unit(t, j, q);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) factor[j] = column + j < c.columns ? factors[column + j] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row + i >= c.rows || column >= c.columns) continue;
      float* to = &p[i].x;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint2 unit = x[transposed ? j : i];
        const int at = transposed ? i : j;
        to[j] = updated(to[j], bf16_value(at < 2 ? unit.x : unit.y, at % 2), scale, factor[at], f);
      }
      *reinterpret_cast<float4*>(m.param + static_cast<int64_t>(row + i) * c.columns + column) = p[i];
    }
  }
}

}  // namespace

void muon_prepare(cudaStream_t stream, const MuonChunk& c, const MuonFactors& f) {
  const dim3 rows(ceil_div(c.rows, tile), c.matrices);
  const dim3 tiles(ceil_div(c.l_padded, 32 * vec), c.s_padded / tile, c.matrices);
  if (c.transposed) {
    momentum_kernel<true><<<rows, threads, 0, stream>>>(c, f);
  } else {
    momentum_kernel<false><<<rows, threads, 0, stream>>>(c, f);
  }
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
  row_factor_kernel<<<c.matrices, threads, 0, stream>>>(c);
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
  if (c.transposed) {
    normalise_kernel<true><<<tiles, threads, 0, stream>>>(c);
  } else {
    normalise_kernel<false><<<tiles, threads, 0, stream>>>(c);
  }
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
}

void muon_apply(cudaStream_t stream, const MuonChunk& c, const MuonFactors& f) {
  column_squares_kernel<<<dim3(c.l_padded / tile, c.matrices), threads, 0, stream>>>(c);
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
  second_moment_kernel<<<c.matrices, threads, 0, stream>>>(c, f);
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
  const dim3 rows(ceil_div(c.rows, tile), c.matrices);
  if (c.transposed) {
    update_kernel<true><<<rows, threads, 0, stream>>>(c, f);
  } else {
    update_kernel<false><<<rows, threads, 0, stream>>>(c, f);
  }
  ASSAY_CUDA_LAUNCHED("muon", describe(c));
}

}  // namespace assay::cuda
