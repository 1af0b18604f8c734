// softcap + cross entropy, in place. Bytes per logit: 2 in, 2 out.
#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/sm90.cuh"

namespace assay::cuda {
namespace {

constexpr int threads = 1024;

template <class S>
struct Loss {
  S* logits;
  const int32_t* targets;
  float* loss;
  int64_t C;
  int V;
  float cap, inverse_cap, grad_scale;
  bool forward_only;
};

__device__ __forceinline__ float tanh_of(float u) {
  return 1.0f - 2.0f / (__expf(2.0f * u) + 1.0f);
}

struct BlockReduce {
  float* parts;  // [32]
  __device__ __forceinline__ float sum(float x) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(parts[threadIdx.x % 32]);
  }
  __device__ __forceinline__ float max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[threadIdx.x % 32];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
    return x;
  }
};

// Any V, type and cap: the row is read three times, after the first from the caches.
template <class S>
__global__ __launch_bounds__(threads) void loss_kernel(Loss<S> a) {
  __shared__ float parts[32];
  BlockReduce reduce{parts};
  S* row = a.logits + static_cast<int64_t>(blockIdx.x) * a.V;
  const int target = a.targets[blockIdx.x];
  // tanh rises, so the largest logit gives the largest z.
  float top = -INFINITY;
  for (int j = threadIdx.x; j < a.V; j += threads) top = fmaxf(top, to_float(row[j]));
  top = a.cap * tanh_of(reduce.max(top) * a.inverse_cap);
  float sum = 0;
  for (int j = threadIdx.x; j < a.V; j += threads)
    sum += __expf(a.cap * tanh_of(to_float(row[j]) * a.inverse_cap) - top);
  sum = reduce.sum(sum);
  if (threadIdx.x == 0) a.loss[blockIdx.x] = top + logf(sum) - a.cap * tanh_of(to_float(row[target]) * a.inverse_cap);
  if (a.forward_only) return;
  __syncthreads();  // the target's logit has been read
  const float inverse = 1.0f / sum;
  for (int j = threadIdx.x; j < a.V; j += threads) {
    const float t = tanh_of(to_float(row[j]) * a.inverse_cap);
    const float p = __expf(a.cap * t - top) * inverse - (j == target ? 1.0f : 0.0f);
    row[j] = rounded<S>(p * a.grad_scale * (1.0f - t * t));
  }
}

// --- bf16 rows that fit into shared memory three times: read once, written once
// ----------------------------------------
//
// A persistent block per SM works on one row while the next is being loaded and the last one stored. With
// E = exp(2x/cap) and r = 1/(1 + E): tanh(x/cap) = 1 - 2r and 1 - tanh^2 = 4 E r^2, so z - cap = -2 cap r needs no
// maximum: it lies in [-2 cap, 0], where exp neither overflows nor, for caps up to 40, leaves the normal numbers.
// Three special-function instructions per logit: 6,144 cycles for 32,768 of them, less than their 9,500 cycles of
// traffic.

constexpr int buffers = 3;
constexpr int vectors = 4;  // of 8 logits per thread
constexpr int longest_row = vectors * vec * threads;
constexpr double highest_cap = 40;

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

// bf16 rows that are longer: the row is read twice, the second time from the caches.
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
  const float scale = a.grad_scale / sum, target_grad = (target_e / sum - 1.0f) * a.grad_scale * slope;
#pragma unroll 2
  for (int v = threadIdx.x; v < row_vectors; v += threads) {
    const Packed<bf16> x = load(row + v * vec);
    float g[vec];
#pragma unroll
    for (int j = 0; j < vec; ++j) {
      const float e = cap.exp_shifted(x.get(j), slope, r);
      g[j] = v * vec + j == target ? target_grad : e * slope * scale;
    }
    store(row + v * vec, g);
  }
}

__global__ __launch_bounds__(threads, 1) void streamed_loss_kernel(Loss<bf16> a, Softcap cap) {
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
        line[at] = pack<bf16>(g[v]).words[0];
      }
      if (owner) reinterpret_cast<bf16*>(line)[target] = rounded<bf16>((target_e / sum - 1.0f) * a.grad_scale * slope);
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x != 0) continue;
    if (!a.forward_only) bulk_store(a.logits + row * a.V, line, row_bytes);
    const int64_t next = row + static_cast<int64_t>(buffers - 1) * gridDim.x;
    if (next >= a.C) continue;
    bulk_store_wait_read<1>();  // the buffer of the next load was stored from one row ago
    load_row(i + buffers - 1, next);
  }
  if (threadIdx.x == 0) bulk_store_wait_read<0>();
}

int sm_count() {
  static const int count = [] {
    int device = 0, n = 0;
    ASSAY_CUDA_CHECK("softcap_xent", cudaGetDevice(&device));
    ASSAY_CUDA_CHECK("softcap_xent", cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
    return n;
  }();
  return count;
}

// The fast kernels: bf16, whole 16-byte vectors, a cap that exp_shifted can do.
void launch_bf16(cudaStream_t stream, const Loss<bf16>& loss, double softcap) {
  constexpr double log2_e = 1.4426950408889634;
  const Softcap cap{static_cast<float>(2 * log2_e / softcap), static_cast<float>(-2 * log2_e * softcap)};
  if (loss.V > longest_row) {
    long_row_kernel<<<loss.C, threads, 0, stream>>>(loss, cap);
    return;
  }
  ASSAY_CUDA_CHECK("softcap_xent",
                   cudaFuncSetAttribute(streamed_loss_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        buffers * longest_row * 2));
  const int64_t blocks = std::min<int64_t>(sm_count(), loss.C);
  streamed_loss_kernel<<<blocks, threads, buffers * loss.V * 2, stream>>>(loss, cap);
}

}  // namespace

void softcap_xent(cudaStream_t stream, const SoftcapXentArgs& a) {
  const char* op = "softcap_xent";
  ASSAY_OP_CHECK(op, a.logits && a.logits.rank == 2 && a.softcap > 0,
                 "logits are " + a.logits.describe() + ", expected [C, V]");
  const int64_t C = a.logits.dim(0), V = a.logits.dim(1);
  check_tensor(op, "targets", a.targets, DType::i32, {C});
  check_tensor(op, "loss", a.loss, DType::f32, {C});
  if (C == 0) return;
  dispatch(op, a.logits.dtype, [&]<class S>(S) {
    const bool aligned = V % vec == 0 && reinterpret_cast<uintptr_t>(a.logits.data) % 16 == 0;
    const Loss<S> loss{a.logits.as<S>(),
                       a.targets.as<int32_t>(),
                       a.loss.as<float>(),
                       C,
                       static_cast<int>(V),
                       static_cast<float>(a.softcap),
                       static_cast<float>(1.0 / a.softcap),
                       static_cast<float>(a.grad_scale),
                       a.forward_only};
    if constexpr (sizeof(S) == 2) {
      if (aligned && a.softcap <= highest_cap) return launch_bf16(stream, loss, a.softcap);
    }
    loss_kernel<S><<<C, threads, 0, stream>>>(loss);
  });
  ASSAY_CUDA_LAUNCHED(op, a.logits.describe());
}

}  // namespace assay::cuda
