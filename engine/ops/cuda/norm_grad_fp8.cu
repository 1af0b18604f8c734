// Backward of mix_norm that writes its result in FP8 too, and n, which it reads, transposed. Bytes per element: those
// of norm_grad.cu and 1 per orientation. A block works on 32 rows (lambda_rows), so that a column's codes are a whole
// 32-byte sector of the transposed matrix.
#include "engine/ops/cuda/norm_grad.cuh"

namespace assay::cuda {
namespace {

using Tile = CodeTile<lambda_rows>;
constexpr int widest_row = 1536;

template <class L, bool mix, class F>
__global__ __launch_bounds__(128) void norm_grad_fp8_kernel(MixNormGrad<bf16, bf16> a, ProducedFp8 to,
                                                            TransposedNorm normed) {
  extern __shared__ __align__(16) uint32_t tile[];
  uint32_t* const normed_tile = tile + (to.transposed != nullptr ? Tile::words(a.d) : 0);
  const float normed_inverse = 1.0f / normed.scale;
  const float resid = mix ? *a.resid_lambda : 1.0f, skip = mix ? *a.x0_lambda : 0.0f, inverse = 1.0f / to.scale();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * Tile::rows;
  LambdaSums sums{0, 0};
  int amax = 0;
  for (int r = threadIdx.x / L::threads; r < Tile::rows; r += L::rows_per_block) {
    const int64_t row = first + r;
    const bool live = row < a.N;
    Packed<bf16> n[L::chunks], dx[L::chunks];
    const float2 of_row = grad_row<L, mix>(a, row, live, resid, skip, n, dx);
    if constexpr (mix) add_lambda_sums<L>(a, row, live, of_row, &sums);
#pragma unroll
    for (int c = 0; c < L::chunks; ++c) {
      const int column = L::column(c);
      if (column >= a.d) continue;
      float x[vec];
      unpack(dx[c], x);
      amax = amax_of(x, amax);
      const uint2 codes = encode<F>(x, inverse);
      if (live && to.codes != nullptr) *reinterpret_cast<uint2*>(to.codes + row * a.d + column) = codes;
      if (to.transposed != nullptr) Tile::put(tile, a.d, r, column, codes);
      if (normed.codes == nullptr) continue;
      unpack(n[c], x);
      Tile::put(normed_tile, a.d, r, column, encode<E4m3>(x, normed_inverse));
    }
  }
  amax = block_max<4>(amax);  // behind its barriers the tile is whole
  if (threadIdx.x == 0) raise(reinterpret_cast<int*>(to.delayed.amax), amax);
  if (threadIdx.x == 0 && blockIdx.x == 0) {
    to.store_scales();
    normed.store_scale();
  }
  if (to.transposed != nullptr) Tile::write(tile, a.d, to.transposed, a.N, first);
  if (normed.codes != nullptr) Tile::write(normed_tile, a.d, normed.codes, a.N, first);
  if constexpr (mix) store_lambda_sums(sums, a.sums);
}

template <class L, bool mix, class F>
void launch(cudaStream_t stream, const MixNormGrad<bf16, bf16>& a, const ProducedFp8& to, const TransposedNorm& normed,
            const MixNormGradArgs& args) {
  const auto kernel = norm_grad_fp8_kernel<L, mix, F>;
  const int tiles = (to.transposed != nullptr ? 1 : 0) + (normed.codes != nullptr ? 1 : 0);
  const int bytes = tiles * Tile::words(a.d) * 4;
  ASSAY_CUDA_CHECK("mix_norm_grad", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                         2 * Tile::words(widest_row) * 4));
  kernel<<<norm_grad_fp8_blocks(a.N), 128, bytes, stream>>>(a, to, normed);
  ASSAY_CUDA_LAUNCHED("mix_norm_grad", args.dx.describe());
}

template <class L>
void launch_row(cudaStream_t stream, const MixNormGrad<bf16, bf16>& a, const ProducedFp8& to,
                const TransposedNorm& normed, const MixNormGradArgs& args) {
  const bool e5m2 = (args.dx8 ? args.dx8 : args.dx8t).codes.dtype == DType::fp8_e5m2;
  if (args.resid_lambda)
    e5m2 ? launch<L, true, E5m2>(stream, a, to, normed, args) : launch<L, true, E4m3>(stream, a, to, normed, args);
  else
    e5m2 ? launch<L, false, E5m2>(stream, a, to, normed, args) : launch<L, false, E4m3>(stream, a, to, normed, args);
}

}  // namespace

bool norm_grad_fp8_takes(const MixNormGradArgs& a, int64_t d) {
  return a.dx.dtype == DType::bf16 && (!a.resid_lambda || a.dx0.dtype == DType::bf16) && d <= widest_row;
}

int64_t norm_grad_fp8_blocks(int64_t N) {
  return ceil_div(N, Tile::rows);
}

void norm_grad_fp8(cudaStream_t stream, const MixNormGrad<bf16, bf16>& a, const ProducedFp8& to,
                   const TransposedNorm& normed, const MixNormGradArgs& args, const Tiling& tiling) {
  const RowShape s = row_shape(a.d, tiling.by_width);  // the plain kernel's
  if (s.threads == 32) return launch_row<RowLayout<32, 3>>(stream, a, to, normed, args);
  if (s.threads == 64) return launch_row<RowLayout<64, 3>>(stream, a, to, normed, args);
  if (s.chunks == 1) return launch_row<RowLayout<128, 1>>(stream, a, to, normed, args);
  launch_row<RowLayout<128, 4>>(stream, a, to, normed, args);
}

}  // namespace assay::cuda
