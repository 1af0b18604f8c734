// softcap + cross entropy of bf16 logits. Bytes per logit: 2 in, 2 out in place; or 1 out as FP8 codes, and 2 more to
// transpose them.
#include "engine/ops/cuda/device.h"
#include "engine/ops/cuda/loss.cuh"
#include "engine/ops/cuda/sm90.cuh"
#include "engine/ops/cuda/transpose_codes.h"

namespace assay::cuda {
namespace {

constexpr int threads = loss_threads;

// The gradient in place of the logits.
struct InPlace {};

// Rows that fit into shared memory three times are read once and written once.
//
// A persistent block per SM works on one row while the next is being loaded and the last one stored. With
// E = exp(2x/cap) and r = 1/(1 + E): tanh(x/cap) = 1 - 2r and 1 - tanh^2 = 4 E r^2, so z - cap = -2 cap r needs no
// maximum: it lies in [-2 cap, 0], where exp neither overflows nor, for caps up to 40, leaves the normal numbers.
// Three special-function instructions per logit: 6,144 cycles for 32,768 of them, less than their 9,500 cycles of
// traffic.

constexpr int buffers = 3;
constexpr int vectors = 4;  // of 8 logits per thread
constexpr int longest_row = vectors * vec * threads;

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ void bulk_load(void* dst, const void* src, uint32_t bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   sm90::smem_address(dst)),
               "l"(src), "r"(bytes), "r"(sm90::smem_address(barrier))
               : "memory");
}
__device__ __forceinline__ void bulk_store(void* dst, const void* src, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(dst), "r"(sm90::smem_address(src)),
               "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until at most `pending` of this thread's stores have not yet read their shared memory.
template <int pending>
__device__ __forceinline__ void bulk_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

struct Softcap {
  float to_exponent;  // 2 log2(e) / cap
  float to_shifted;   // -2 cap log2(e)

  // exp(z - cap); slope = 1 - tanh^2.
  __device__ __forceinline__ float exp_shifted(float x, float& slope, float& r) const {
    float m = x * to_exponent;
    m = m > 126.0f ? 126.0f : m;  // E stays finite; a NaN stays
    const float E = exp2_approx(m);
    r = reciprocal_approx(1.0f + E);
    slope = 4.0f * (E * r) * r;
    return exp2_approx(to_shifted * r);
  }
};

// Eight gradients on their way out, rounded to bf16 before they become codes, as quantize would find them.
template <class Out>
__device__ __forceinline__ auto packed(float (&g)[vec], float inverse_scale) {
  const Packed<bf16> rounded = pack<bf16>(g);
  if constexpr (std::is_same_v<Out, InPlace>) {
    return rounded.words[0];
  } else {
    unpack(rounded, g);
    return encode<Out>(g, inverse_scale);
  }
}
template <class Out>
__device__ __forceinline__ auto packed_one(float g, float inverse_scale) {
  if constexpr (std::is_same_v<Out, InPlace>)
    return rounded<bf16>(g);
  else
    return static_cast<uint8_t>(__nv_cvt_float_to_fp8(round_to<bf16>(g) * inverse_scale, __NV_SATFINITE, Out::kind));
}
template <class Out>
__device__ __forceinline__ void store_scales(const Loss<bf16>& a) {
  if constexpr (!std::is_same_v<Out, InPlace>)
    if (blockIdx.x == 0 && threadIdx.x < 2 && !a.forward_only) *a.code_scales[threadIdx.x] = a.scale;
}

// bf16 rows that are longer: the row is read twice, the second time from the caches.
template <class Out>
__global__ __launch_bounds__(threads) void long_row_kernel(Loss<bf16> a, Softcap cap) {
  __shared__ float parts[32];
  bf16* row = a.logits + static_cast<int64_t>(blockIdx.x) * a.V;
  const int target = a.targets[blockIdx.x], row_vectors = a.V / vec;
  const float target_x = to_float(row[target]);
  float sum = 0, slope, r;
#pragma unroll 4
  for (int v = threadIdx.x; v < row_vectors; v += threads) {
    const Packed<bf16> x = load(row + v * vec);
#pragma unroll
    for (int j = 0; j < vec; ++j) sum += cap.exp_shifted(x.get(j), slope, r);
  }
  sum = BlockReduce{parts}.sum(sum);  // also: every thread has read the target's logit
  const float target_e = cap.exp_shifted(target_x, slope, r);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = logf(sum) + 2.0f * a.cap * r;
  if (a.forward_only) return;
  store_scales<Out>(a);
  const float scale = a.grad_scale / sum, target_grad = (target_e / sum - 1.0f) * a.grad_scale * slope;
  const float inverse_scale = 1.0f / a.scale;
#pragma unroll 2
  for (int v = threadIdx.x; v < row_vectors; v += threads) {
    const Packed<bf16> x = load(row + v * vec);
    float g[vec];
#pragma unroll
    for (int j = 0; j < vec; ++j) {
      const float e = cap.exp_shifted(x.get(j), slope, r);
      g[j] = v * vec + j == target ? target_grad : e * slope * scale;
    }
    const auto out = packed<Out>(g, inverse_scale);
    if constexpr (std::is_same_v<Out, InPlace>)
      reinterpret_cast<uint4*>(row)[v] = out;
    else
      reinterpret_cast<uint2*>(a.codes + static_cast<int64_t>(blockIdx.x) * a.V)[v] = out;
  }
}

template <class Out>
__global__ __launch_bounds__(threads, 1) void streamed_loss_kernel(Loss<bf16> a, Softcap cap) {
  using Word = decltype(packed<Out>(std::declval<float(&)[vec]>(), 0.0f));
  using Element = decltype(packed_one<Out>(0.0f, 0.0f));
  extern __shared__ __align__(128) uint8_t smem[];
  __shared__ uint64_t full[buffers];
  __shared__ float parts[2][32];
  const uint32_t row_bytes = static_cast<uint32_t>(a.V) * 2;
  const int row_vectors = a.V / vec;
  const auto buffer = [&](int64_t i) { return smem + i % buffers * row_bytes; };
  const auto load_row = [&](int64_t i, int64_t row) {
    uint64_t* barrier = &full[i % buffers];
    sm90::barrier_expect(barrier, row_bytes);
    bulk_load(buffer(i), a.logits + row * a.V, row_bytes, barrier);
  };
  if (threadIdx.x == 0) {
    for (int b = 0; b < buffers; ++b) sm90::barrier_init(&full[b], 1);
    sm90::fence_barrier_init();
    for (int i = 0; i < buffers - 1; ++i) {
      const int64_t row = blockIdx.x + static_cast<int64_t>(i) * gridDim.x;
      if (row < a.C) load_row(i, row);
    }
  }
  __syncthreads();
  store_scales<Out>(a);
  const float inverse_scale = 1.0f / a.scale;
  int64_t i = 0;
  for (int64_t row = blockIdx.x; row < a.C; row += gridDim.x, ++i) {
    const int target = a.targets[row];
    uint4* line = reinterpret_cast<uint4*>(buffer(i));
    sm90::barrier_wait(&full[i % buffers], static_cast<uint32_t>(i / buffers & 1));
    const float target_x = to_float(reinterpret_cast<const bf16*>(line)[target]);
    float g[vectors][vec];  // exp(z - cap) * (1 - tanh^2)
    float sum = 0;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      const int at = v * threads + threadIdx.x;
      if (at >= row_vectors) break;
      const Packed<bf16> x{line[at]};
#pragma unroll
      for (int j = 0; j < vec; ++j) {
        float slope, r;
        const float e = cap.exp_shifted(x.get(j), slope, r);
        sum += e;
        g[v][j] = e * slope;
      }
    }
    sum = warp_sum(sum);
    float* part = parts[i & 1];
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = warp_sum(part[threadIdx.x % 32]);
    const float scale = a.grad_scale / sum;
    const bool owner = target / vec % threads == threadIdx.x;
    float slope, r;
    const float target_e = cap.exp_shifted(target_x, slope, r);
    if (owner) a.loss[row] = logf(sum) + 2.0f * a.cap * r;  // (cap + log(sum)) - (cap - 2 cap r)
    if (!a.forward_only) {
#pragma unroll
      for (int v = 0; v < vectors; ++v) {
        const int at = v * threads + threadIdx.x;
        if (at >= row_vectors) break;
#pragma unroll
        for (int j = 0; j < vec; ++j) g[v][j] *= scale;
        reinterpret_cast<Word*>(line)[at] = packed<Out>(g[v], inverse_scale);
      }
      if (owner)
        reinterpret_cast<Element*>(line)[target] =
            packed_one<Out>((target_e / sum - 1.0f) * a.grad_scale * slope, inverse_scale);
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x != 0) continue;
    Element* to;
    if constexpr (std::is_same_v<Out, InPlace>)
      to = a.logits;
    else
      to = a.codes;
    if (!a.forward_only) bulk_store(to + row * a.V, line, static_cast<uint32_t>(a.V * sizeof(Element)));
    const int64_t next = row + static_cast<int64_t>(buffers - 1) * gridDim.x;
    if (next >= a.C) continue;
    bulk_store_wait_read<1>();  // the buffer of the next load was stored from one row ago
    load_row(i + buffers - 1, next);
  }
  if (threadIdx.x == 0) bulk_store_wait_read<0>();
}

template <class Out>
void launch(cudaStream_t stream, const Loss<bf16>& loss, double softcap) {
  constexpr double log2_e = 1.4426950408889634;
  const Softcap cap{static_cast<float>(2 * log2_e / softcap), static_cast<float>(-2 * log2_e * softcap)};
  if (loss.V > longest_row) {
    long_row_kernel<Out><<<loss.C, threads, 0, stream>>>(loss, cap);
    return;
  }
  ASSAY_CUDA_CHECK("softcap_xent",
                   cudaFuncSetAttribute(streamed_loss_kernel<Out>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        buffers * longest_row * 2));
  const int64_t blocks = std::min<int64_t>(multiprocessors(), loss.C);
  streamed_loss_kernel<Out><<<blocks, threads, buffers * loss.V * 2, stream>>>(loss, cap);
}

}  // namespace

void bf16_loss(cudaStream_t stream, const Loss<bf16>& loss, double softcap) {
  launch<InPlace>(stream, loss, softcap);
}

void bf16_loss_codes(cudaStream_t stream, const Loss<bf16>& to, const SoftcapXentArgs& a) {
  Loss<bf16> loss = to;
  loss.codes = a.grad8.codes.as<uint8_t>();
  loss.code_scales[0] = a.grad8.scales.as<float>(), loss.code_scales[1] = a.grad8t.scales.as<float>();
  loss.scale = gradient_scale(a);
  if (a.grad8.codes.dtype == DType::fp8_e4m3)
    launch<E4m3>(stream, loss, a.softcap);
  else
    launch<E5m2>(stream, loss, a.softcap);
  if (!a.forward_only) transpose_codes(stream, a.grad8.codes, a.grad8t.codes);
}

}  // namespace assay::cuda
