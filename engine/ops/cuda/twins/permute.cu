// Rows into expert order and back. Bytes: permute reads each token's row once, given slot, and writes k; combine reads
// k rows, the shared and the residual row and writes one.
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/permute_quantize.h"

namespace assay::cuda {
namespace {

// A warp copies one row of `words` 16-byte words as bytes; padding rows become zeros.
__global__ __launch_bounds__(256) void gather_kernel(const int32_t* token_of, int64_t R, const uint4* from, uint4* to,
                                                     int words) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (r >= R) return;
  const int64_t token = token_of[r];
  const uint4* source = from + token * words;
  uint4* target = to + r * words;
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < words; i += 32) target[i] = token < 0 ? make_uint4(0, 0, 0, 0) : source[i];
}

// The elements of a 16-byte word times `gate`, rounded once.
template <class S>
__device__ __forceinline__ uint4 scale_word(uint4 word, float gate) {
  uint32_t* part = &word.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(S) == 2) {
      const float low = __uint_as_float(part[i] << 16), high = __uint_as_float(part[i] & 0xFFFF0000u);
      const __nv_bfloat162 pair = __floats2bfloat162_rn(gate * low, gate * high);
      part[i] = *reinterpret_cast<const uint32_t*>(&pair);
    } else {
      part[i] = __float_as_uint(gate * __uint_as_float(part[i]));
    }
  }
  return word;
}

template <class S>
__global__ __launch_bounds__(256) void gated_gather_kernel(const int32_t* token_of, const float* gate, int64_t R,
                                                           const S* x, S* out, int d) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (r >= R) return;
  const int64_t token = token_of[r];
  const float scale = gate[r];
#pragma unroll 4
  for (int column = threadIdx.x % 32 * vec; column < d; column += 32 * vec) {
    float v[vec];
    unpack(load_or_zero(x + token * d + column, token >= 0), v);
#pragma unroll
    for (int i = 0; i < vec; ++i) v[i] = token >= 0 ? scale * v[i] : 0.0f;
    store(out + r * d + column, v);
  }
}

// per_row scales of each row; 1 in padding rows.
__global__ __launch_bounds__(256) void gather_scales_kernel(const int32_t* token_of, int64_t count, const float* from,
                                                            float* to, int per_row) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const int64_t r = i / per_row, token = token_of[r];
  to[i] = token < 0 ? 1.0f : from[token * per_row + i % per_row];
}

// The same copies seen from the tokens: a warp reads one row and writes it to its k slots, so each row is read once.
// The warps beyond the tokens look for padding rows and clear them.
struct Scatter {
  const int32_t *token_of, *slot;
  const float* gate;  // may be null
  int64_t N, R;
  int k, width;  // of a row, in elements
};

template <class S, bool gated>
__global__ __launch_bounds__(256) void scatter_kernel(Scatter a, const S* x, S* out) {
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  constexpr int step = 16 / static_cast<int>(sizeof(S));  // elements per 16 bytes
  if (warp < a.N) {
    const uint4* from = reinterpret_cast<const uint4*>(x + warp * a.width);
    const int words = a.width / step;
#pragma unroll 3
    for (int i = lane; i < words; i += 32) {
      const uint4 word = from[i];
#pragma unroll 2
      for (int j = 0; j < a.k; ++j) {
        const int64_t r = a.slot[warp * a.k + j];
        uint4 moved = word;
        if constexpr (gated) moved = scale_word<S>(word, a.gate[r]);
        reinterpret_cast<uint4*>(out + r * a.width)[i] = moved;
      }
    }
    return;
  }
  const int64_t r = (warp - a.N) * 32 + lane;
  uint32_t padding = __ballot_sync(0xFFFFFFFFu, r < a.R && a.token_of[min(r, a.R - 1)] < 0);
  for (; padding != 0; padding &= padding - 1) {
    uint4* to = reinterpret_cast<uint4*>(out + ((warp - a.N) * 32 + __ffs(padding) - 1) * a.width);
    for (int i = lane; i < a.width / step; i += 32) to[i] = make_uint4(0, 0, 0, 0);
  }
}

template <class S>
struct Combine {
  const S* y;
  const int32_t* slot;
  const float* weights;        // may be null
  const S *shared, *residual;  // may be null
  S* out;
  int64_t N;
  int k, d;
};

// A warp per token. picks: k, known at compile time so that all reads are in flight together; 0: any k.
template <int picks, class S>
__global__ __launch_bounds__(256) void combine_kernel(Combine<S> a) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (t >= a.N) return;
  const int k = picks > 0 ? picks : a.k;
  constexpr int unrolled = picks > 0 ? picks : 1;
#pragma unroll 3
  for (int column = threadIdx.x % 32 * vec; column < a.d; column += 32 * vec) {
    const Packed<S> shared = load_or_zero(a.shared + t * a.d + column, a.shared != nullptr);
    const Packed<S> residual = load_or_zero(a.residual + t * a.d + column, a.residual != nullptr);
    float sum[vec] = {};
#pragma unroll unrolled
    for (int j = 0; j < k; ++j) {
      const float weight = a.weights != nullptr ? a.weights[t * k + j] : 1.0f;
      const Packed<S> y = load(a.y + static_cast<int64_t>(a.slot[t * k + j]) * a.d + column);
#pragma unroll
      for (int i = 0; i < vec; ++i) sum[i] += weight * y.get(i);
    }
#pragma unroll
    for (int i = 0; i < vec; ++i) {
      if (a.shared != nullptr) sum[i] += shared.get(i);
      if (a.residual != nullptr) sum[i] += residual.get(i);
    }
    store(a.out + t * a.d + column, sum);
  }
}

template <class S, bool gated>
void launch_scatter(cudaStream_t stream, const PermuteArgs& a, const void* x, void* out, int64_t width,
                    int block_warps) {
  const int64_t N = a.slot.dim(0), R = a.token_of.numel(), warps = N + ceil_div(R, 32);
  const Scatter s{a.token_of.as<int32_t>(),        a.slot.as<int32_t>(),   a.gate.as<float>(), N, R,
                  static_cast<int>(a.slot.dim(1)), static_cast<int>(width)};
  scatter_kernel<S, gated><<<ceil_div(warps, block_warps), block_warps * 32, 0, stream>>>(s, static_cast<const S*>(x),
                                                                                          static_cast<S*>(out));
  ASSAY_CUDA_LAUNCHED("permute", a.token_of.describe() + ", slot " + a.slot.describe());
}

void launch_gather(cudaStream_t stream, const PermuteArgs& a, const Tensor& from, const Tensor& to, int block_warps) {
  const char* op = "permute";
  const int64_t R = a.token_of.numel(), row_bytes = from.dim(1) * static_cast<int64_t>(size_of(from.dtype));
  ASSAY_OP_CHECK(op,
                 row_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(from.data) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(to.data) % 16 == 0,
                 "rows of " + from.describe() + " are not whole 16-byte vectors, or begin between them");
  if (a.slot) return launch_scatter<uint8_t, false>(stream, a, from.data, to.data, row_bytes, block_warps);
  gather_kernel<<<ceil_div(R, block_warps), block_warps * 32, 0, stream>>>(
      a.token_of.as<int32_t>(), R, static_cast<const uint4*>(from.data), static_cast<uint4*>(to.data),
      static_cast<int>(row_bytes / 16));
  ASSAY_CUDA_LAUNCHED(op, from.describe() + " to " + to.describe());
}

void permute_codes(cudaStream_t stream, const PermuteArgs& a, int64_t R, int block_warps) {
  const char* op = "permute";
  const int64_t K = a.x8.codes.dim(a.x8.codes.rank - 1), N = a.x8.codes.numel() / K;
  ASSAY_OP_CHECK(
      op, a.x8.mode == a.out8.mode && a.x8.codes.dtype == a.out8.codes.dtype && a.x8.mode != ScaleMode::block_128x128,
      std::string("cannot move rows of ") + to_string(a.x8.mode) + " " + a.x8.codes.describe() + " to " +
          to_string(a.out8.mode) + " " + a.out8.codes.describe());
  check_quantized(op, "x8", a.x8, 1, N, K);
  check_quantized(op, "out8", a.out8, 1, R, K);
  launch_gather(stream, a, a.x8.codes.view({N, K}), a.out8.codes.view({R, K}), block_warps);
  if (a.x8.mode == ScaleMode::tensorwise) {
    ASSAY_CUDA_CHECK(op, cudaMemcpyAsync(a.out8.scales.data, a.x8.scales.data, 4, cudaMemcpyDeviceToDevice, stream));
    return;
  }
  const int64_t per_row = cpu::scales_per_matrix(a.x8.mode, 1, K), count = R * per_row;
  gather_scales_kernel<<<ceil_div(count, 256), 256, 0, stream>>>(
      a.token_of.as<int32_t>(), count, a.x8.scales.as<float>(), a.out8.scales.as<float>(), static_cast<int>(per_row));
  ASSAY_CUDA_LAUNCHED(op, a.x8.codes.describe());
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- launchers

void permute(cudaStream_t stream, const PermuteArgs& a, Workspace workspace, const Tiling& tiling) {
  const char* op = "permute";
  const int64_t R = a.token_of.numel();
  check_tensor(op, "token_of", a.token_of, DType::i32, {R});
  ASSAY_OP_CHECK(op, !a.x8 || (!a.x && !a.gate), "codes are moved as they are: no x beside them, and no gate");
  if (a.slot) {
    const Tensor& source = a.x ? a.x : a.x8.codes;
    ASSAY_OP_CHECK(op, a.slot.rank == 2 && a.slot.dtype == DType::i32 && a.slot.dim(0) == source.dim(0),
                   "slot is " + a.slot.describe() + ", expected i32[N, k] for the rows of " + source.describe());
  }
  const int block_warps = tiling.permute_warps;
  if (a.x8) return permute_codes(stream, a, R, block_warps);
  ASSAY_OP_CHECK(op, a.x.rank == 2, "x is " + a.x.describe() + ", expected [N, d]");
  const int64_t d = a.x.dim(1);
  if (a.out8 || a.out8t) {
    ASSAY_OP_CHECK(op, !a.out, "x goes to out, or to out8 and out8t");
    return permute_quantize(stream, a, workspace);
  }
  check_tensor(op, "out", a.out, a.x.dtype, {R, d});
  if (!a.gate) return launch_gather(stream, a, a.x, a.out, block_warps);
  check_tensor(op, "gate", a.gate, DType::f32, {R});
  check_vectors(op, "x", a.x, d);
  check_vectors(op, "out", a.out, d);
  dispatch(op, a.x.dtype, [&]<class S>(S) {
    if (a.slot) return launch_scatter<S, true>(stream, a, a.x.data, a.out.data, d, block_warps);
    gated_gather_kernel<S><<<ceil_div(R, block_warps), block_warps * 32, 0, stream>>>(
        a.token_of.as<int32_t>(), a.gate.as<float>(), R, a.x.as<S>(), a.out.as<S>(), static_cast<int>(d));
  });
  ASSAY_CUDA_LAUNCHED(op, a.x.describe());
}

void combine(cudaStream_t stream, const CombineArgs& a) {
  const char* op = "combine";
  ASSAY_OP_CHECK(op, a.y && a.y.rank == 2 && a.slot && a.slot.rank == 2 && a.slot.dtype == DType::i32,
                 "y is " + a.y.describe() + " and slot " + a.slot.describe() + ", expected [R, d] and i32[N, k]");
  const int64_t N = a.slot.dim(0), k = a.slot.dim(1), d = a.y.dim(1);
  check_tensor(op, "out", a.out, a.y.dtype, {N, d});
  if (a.weights) check_tensor(op, "weights", a.weights, DType::f32, {N, k});
  if (a.shared) check_tensor(op, "shared", a.shared, a.y.dtype, {N, d});
  if (a.residual) check_tensor(op, "residual", a.residual, a.y.dtype, {N, d});
  for (const Tensor* t : {&a.y, &a.shared, &a.residual, &a.out}) check_vectors(op, "a tensor", *t, d);
  dispatch(op, a.y.dtype, [&]<class S>(S) {
    const Combine<S> c{
        a.y.as<S>(), a.slot.as<int32_t>(), a.weights.as<float>(), a.shared.as<S>(), a.residual.as<S>(), a.out.as<S>(),
        N,           static_cast<int>(k),  static_cast<int>(d)};
    const auto kernel = k == 1   ? combine_kernel<1, S>
                        : k == 2 ? combine_kernel<2, S>
                        : k == 4 ? combine_kernel<4, S>
                                 : combine_kernel<0, S>;
    kernel<<<ceil_div(N, 8), 256, 0, stream>>>(c);
  });
  ASSAY_CUDA_LAUNCHED(op, a.y.describe());
}

}  // namespace assay::cuda
