// Rows into expert order as FP8 codes, and their transpose. Bytes per element: 2 in (bf16), 1 out for each copy; what a
// token's later rows read is in L2 (order_kernel).
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/permute_quantize.h"

namespace assay::cuda {
namespace {

constexpr int tile = 128;  // rows and columns of a block's tile

struct PermuteQuantize {
  const int32_t* token_of;
  const int32_t* order;            // the bands of 128 rows in the order in which they are done; null: as they lie
  const float *gate, *scale;       // gate may be null
  uint8_t *out, *out_t;            // one may be null
  float *out_scale, *out_t_scale;  // receive scale
  int64_t R;
  int d, column_tiles;
};

constexpr int max_ordered = 12288;  // bands whose first tokens fit into 48 KiB of shared memory

// The bands in the order of the tokens they begin with. The rows of every expert are in the order of their tokens, so
// the experts that took the same tokens read them at the same time: from memory once, then from L2. Eight lanes count
// the bands before one.
__global__ __launch_bounds__(256) void order_kernel(const int32_t* token_of, int bands, int32_t* order) {
  extern __shared__ int32_t tokens[];
  for (int i = threadIdx.x; i < bands; i += 256) tokens[i] = token_of[static_cast<int64_t>(i) * tile];
  __syncthreads();
  const int band = blockIdx.x * 32 + threadIdx.x / 8;
  const int mine = tokens[min(band, bands - 1)];
  int before = 0;
  for (int i = threadIdx.x % 8; i < bands; i += 8) before += tokens[i] < mine || (tokens[i] == mine && i < band);
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) before += __shfl_xor_sync(0xFFFFFFFFu, before, offset);
  if (band < bands && threadIdx.x % 8 == 0) order[before] = band;
}

// The 16-byte chunk of 16 codes of (row, chunk) in a tile of 128-byte rows. Rotated by the row's group of 16, so that
// the eight groups that a warp reads together lie in different banks.
__device__ __forceinline__ int chunk_at(int row, int chunk) {
  return row * tile + ((chunk + row / 16) % 8) * 16;
}

// words[i]: codes of row i, columns 0..3. Afterwards words[j]: codes of column j, rows 0..3.
__device__ __forceinline__ void transpose_4x4(uint32_t* words) {
  const uint32_t a = __byte_perm(words[0], words[1], 0x5140), b = __byte_perm(words[0], words[1], 0x7362);
  const uint32_t c = __byte_perm(words[2], words[3], 0x5140), e = __byte_perm(words[2], words[3], 0x7362);
  words[0] = __byte_perm(a, c, 0x5410);
  words[1] = __byte_perm(a, c, 0x7632);
  words[2] = __byte_perm(b, e, 0x5410);
  words[3] = __byte_perm(b, e, 0x7632);
}

// Thread t of 256 takes rows 16 * (t % 8) .. + 15 and columns 4 * (t / 8) .. + 3 of the tile: lanes that store side by
// side hold the row groups of one column.
__device__ __forceinline__ void store_transposed(const uint8_t* codes, const PermuteQuantize& p, int64_t row,
                                                 int column) {
  const int first = threadIdx.x % 8 * 16, c = threadIdx.x / 8 * 4;
  uint32_t words[16];
#pragma unroll
  for (int i = 0; i < 16; ++i)
    words[i] = *reinterpret_cast<const uint32_t*>(codes + chunk_at(first + i, c / 16) + c % 16);
#pragma unroll
  for (int i = 0; i < 16; i += 4) transpose_4x4(words + i);
  if (row + first >= p.R || column + c >= p.d) return;  // R and d are multiples of 16
#pragma unroll
  for (int j = 0; j < 4; ++j)
    *reinterpret_cast<uint4*>(p.out_t + static_cast<int64_t>(column + c + j) * p.R + row + first) =
        make_uint4(words[j], words[4 + j], words[8 + j], words[12 + j]);
}

// A block per tile, the tiles of one row band side by side. A thread makes 16 codes of a row; eight threads its 128.
template <class S, class F>
__global__ __launch_bounds__(256) void permute_quantize_kernel(const S* x, PermuteQuantize p) {
  __shared__ __align__(16) uint8_t codes[tile * tile];
  const int position = static_cast<int>(blockIdx.x / p.column_tiles);
  const int64_t row = static_cast<int64_t>(p.order != nullptr ? p.order[position] : position) * tile;
  const int column = static_cast<int>(blockIdx.x % p.column_tiles) * tile;
  const int chunk = threadIdx.x % 8;
  const bool inside = column + chunk * 16 < p.d;
  const float scale = *p.scale, inverse = 1.0f / scale;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    if (p.out_scale != nullptr) *p.out_scale = scale;
    if (p.out_t_scale != nullptr) *p.out_t_scale = scale;
  }
  Packed<S> in[4][2];
  int64_t token[4];
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    const int64_t r = row + u * 32 + threadIdx.x / 8;
    token[u] = r < p.R ? p.token_of[r] : -1;
  }
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    const S* from = x + token[u] * p.d + column + chunk * 16;
    in[u][0] = load_or_zero(from, inside && token[u] >= 0);
    in[u][1] = load_or_zero(from + vec, inside && token[u] >= 0);
  }
#pragma unroll
  for (int u = 0; u < 4; ++u) {
    const int local = u * 32 + threadIdx.x / 8;
    const int64_t r = row + local;
    const float gate = p.gate != nullptr && token[u] >= 0 ? p.gate[r] : 1.0f;
    uint4 word = make_uint4(0, 0, 0, 0);
    if (token[u] >= 0) {
      float low[vec], high[vec];
#pragma unroll
      for (int i = 0; i < vec; ++i) low[i] = gate * in[u][0].get(i), high[i] = gate * in[u][1].get(i);
      const uint2 a = encode<F>(low, inverse), b = encode<F>(high, inverse);
      word = make_uint4(a.x, a.y, b.x, b.y);
    }
    if (p.out != nullptr && inside && r < p.R) *reinterpret_cast<uint4*>(p.out + r * p.d + column + chunk * 16) = word;
    if (p.out_t != nullptr) *reinterpret_cast<uint4*>(codes + chunk_at(local, chunk)) = word;
  }
  if (p.out_t == nullptr) return;
  __syncthreads();
  store_transposed(codes, p, row, column);
}

void check_output(const char* name, const Quantized& q, DType format, int64_t rows, int64_t columns) {
  const char* op = "permute";
  check_quantized(op, name, q, 1, rows, columns);
  ASSAY_OP_CHECK(op, q.mode == ScaleMode::tensorwise && q.codes.dtype == format,
                 std::string(name) + " is " + to_string(q.mode) + " " + q.codes.describe() +
                     "; codes of x are tensorwise and both copies of one format");
  ASSAY_OP_CHECK(op, columns % 16 == 0 && reinterpret_cast<uintptr_t>(q.codes.data) % 16 == 0,
                 std::string(name) + " " + q.codes.describe() + " has rows that are not whole 16-byte vectors");
}

}  // namespace

void permute_quantize(cudaStream_t stream, const PermuteArgs& a, Workspace workspace) {
  const char* op = "permute";
  const int64_t R = a.token_of.numel(), d = a.x.dim(1);
  const DType format = (a.out8 ? a.out8 : a.out8t).codes.dtype;
  check_tensor(op, "scale", a.scale, DType::f32, {1});
  check_vectors(op, "x", a.x, d);
  ASSAY_OP_CHECK(op, d % 16 == 0, "x " + a.x.describe() + " has no whole vectors of 16 codes");
  if (a.gate) check_tensor(op, "gate", a.gate, DType::f32, {R});
  if (a.out8) check_output("out8", a.out8, format, R, d);
  if (a.out8t) check_output("out8t", a.out8t, format, d, R);
  const int64_t column_tiles = ceil_div(d, tile), bands = ceil_div(R, tile);
  int32_t* order = nullptr;
  if (bands <= max_ordered) {
    order = workspace.take<int32_t>(op, bands);
    order_kernel<<<ceil_div(bands, 32), 256, static_cast<size_t>(bands) * sizeof(int32_t), stream>>>(
        a.token_of.as<int32_t>(), static_cast<int>(bands), order);
    ASSAY_CUDA_LAUNCHED(op, a.token_of.describe());
  }
  const PermuteQuantize p{a.token_of.as<int32_t>(),
                          order,
                          a.gate.as<float>(),
                          a.scale.as<float>(),
                          a.out8.codes.as<uint8_t>(),
                          a.out8t.codes.as<uint8_t>(),
                          a.out8.scales.as<float>(),
                          a.out8t.scales.as<float>(),
                          R,
                          static_cast<int>(d),
                          static_cast<int>(column_tiles)};
  const auto blocks = static_cast<unsigned>(bands * column_tiles);
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    if (format == DType::fp8_e4m3)
      permute_quantize_kernel<S, E4m3><<<blocks, 256, 0, stream>>>(a.x.as<S>(), p);
    else
      permute_quantize_kernel<S, E5m2><<<blocks, 256, 0, stream>>>(a.x.as<S>(), p);
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe() + ", token_of " + a.token_of.describe());
}

}  // namespace assay::cuda
