// Bytes per code: 1 in, 1 out. A block turns 128 rows x 128 columns: 128 bytes of a row in, 128 of a column out.
#include "engine/ops/cuda/transpose_codes.h"

#include "engine/ops/cuda/fp8_tile.cuh"

namespace assay::cuda {
namespace {

constexpr int threads = 256, columns = 128;
using Tile = CodeTile<128>;

__global__ __launch_bounds__(threads) void transpose_kernel(const uint8_t* codes, uint8_t* transposed, int64_t R,
                                                            int64_t K) {
  __shared__ __align__(16) uint32_t tile[Tile::words(columns)];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * Tile::rows, first_column = blockIdx.y * int64_t{columns};
  const int column = threadIdx.x % (columns / vec) * vec, row = threadIdx.x / (columns / vec);
  constexpr int rows_at_once = threads / (columns / vec), loads = Tile::rows / rows_at_once;
  const uint8_t* from = codes + (first_row + row) * K + first_column + column;
  uint2 eight[loads];
#pragma unroll
  for (int i = 0; i < loads; ++i)
    eight[i] = first_row + row + i * rows_at_once < R ? *reinterpret_cast<const uint2*>(from + i * rows_at_once * K)
                                                      : make_uint2(0, 0);
#pragma unroll
  for (int i = 0; i < loads; ++i) Tile::put(tile, columns, row + i * rows_at_once, column, eight[i]);
  __syncthreads();
  Tile::write(tile, columns, transposed + first_column * R, R, first_row);
}

}  // namespace

void transpose_codes(cudaStream_t stream, const Tensor& codes, const Tensor& transposed) {
  const char* op = "transpose_codes";
  ASSAY_OP_CHECK(op, codes.rank == 2 && size_of(codes.dtype) == 1, codes.describe() + " is no matrix of codes");
  const int64_t R = codes.dim(0), K = codes.dim(1);
  check_tensor(op, "transposed", transposed, codes.dtype, {K, R});
  const dim3 grid(static_cast<unsigned>(ceil_div(R, Tile::rows)), static_cast<unsigned>(K / columns));
  ASSAY_OP_CHECK(op,
                 K % columns == 0 && grid.y <= 65535 && reinterpret_cast<uintptr_t>(codes.data) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(transposed.data) % 16 == 0,
                 codes.describe() + " cannot be transposed: columns are whole tiles of 128, addresses multiples of 16");
  transpose_kernel<<<grid, threads, 0, stream>>>(codes.as<uint8_t>(), transposed.as<uint8_t>(), R, K);
  ASSAY_CUDA_LAUNCHED(op, codes.describe());
}

}  // namespace assay::cuda
