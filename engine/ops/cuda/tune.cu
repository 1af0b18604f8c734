#include "engine/ops/cuda/tune.h"

#include <cstdio>
#include <functional>

#include "engine/ops/cuda/element.cuh"
#include "engine/ops/cuda/launch.h"

namespace assay::cuda {
namespace {

constexpr int64_t most_rows = 65536, least_rows = 64;  // more tell nothing new; fewer tell nothing
constexpr int64_t alignment = cuda_limits.row_alignment;
constexpr int rounds = 6;  // the first warms up

// Uniform values in [-range, range); random bytes where T is uint8_t. Never zeros: they would cost less power.
template <class T>
__global__ void fill_kernel(T* to, int64_t n, uint32_t seed, float range) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15ull ^ seed * 0xD1B54A32D192ED03ull;
    x ^= x >> 31, x *= 0xBF58476D1CE4E5B9ull, x ^= x >> 29;
    const float value = range * (static_cast<float>(x >> 40) / 8388608.0f - 1.0f);
    if constexpr (sizeof(T) == 1) {
      to[i] = static_cast<T>(x >> 40);
    } else {
      to[i] = rounded<T>(value);
    }
  }
}

// Tensors one behind the other; without memory it only counts.
struct Scratch {
  std::byte* memory = nullptr;
  size_t used = 0;
  Tensor take(DType dtype, std::initializer_list<int64_t> dims) {
    Tensor t(nullptr, dtype, dims);
    if (memory != nullptr) t.data = memory + used;
    used += (t.bytes() + 255) / 256 * 256;
    return t;
  }
};

// What the timed kernels work on: N rows of a run's shape.
struct Trial {
  Tensor x, x0, n, shared, y, qkv, dqkv;
  Tensor cos, sin, rstd, qk_rstd, lambdas, router_w, bias, probs, weights, gate_of;
  Tensor picks, counts, start, rows, slot, token_of;
  Quantized n8, y8;
  int64_t T;  // of the rotation

  Trial(const TilingRequest& r, int64_t N, Scratch& s) : T(N % r.T == 0 ? r.T : N) {
    const DType act = r.activation, f32 = DType::f32, i32 = DType::i32, fp8 = DType::fp8_e4m3;
    const int64_t k = r.top_k, E = r.experts, R = N * k + E * alignment;
    for (Tensor* t : {&x, &x0, &n, &shared}) *t = s.take(act, {N, r.d});
    y = s.take(act, {R, r.d});
    for (Tensor* t : {&qkv, &dqkv}) *t = s.take(act, {N, 3, r.heads, r.head_dim});
    for (Tensor* t : {&cos, &sin}) *t = s.take(f32, {T, r.head_dim / 2});
    rstd = s.take(f32, {N});
    qk_rstd = s.take(f32, {N, 2, r.heads});
    lambdas = s.take(f32, {2});
    router_w = s.take(f32, {E, r.d});
    bias = s.take(f32, {E});
    for (Tensor* t : {&probs, &weights}) *t = s.take(f32, {N, k});
    gate_of = s.take(f32, {R});
    for (Tensor* t : {&picks, &slot}) *t = s.take(i32, {N, k});
    for (Tensor* t : {&counts, &start, &rows}) *t = s.take(i32, {E});
    token_of = s.take(i32, {R});
    if (!r.routed_codes) return;
    n8 = {s.take(fp8, {N, r.d}), s.take(f32, {1}), ScaleMode::tensorwise};
    y8 = {s.take(fp8, {R, r.d}), s.take(f32, {1}), ScaleMode::tensorwise};
  }

  // Random values, and routing made from them.
  void fill(cudaStream_t stream, Workspace workspace) const {
    uint32_t seed = 0;
    for (const Tensor* t : {&x, &x0, &shared, &y, &qkv, &dqkv, &cos, &sin, &lambdas}) fill(stream, *t, ++seed, 1);
    fill(stream, router_w, ++seed, 0.05f);
    fill(stream, bias, ++seed, 0.01f);
    if (n8) fill(stream, n8.codes, ++seed, 1);
    if (n8) fill(stream, n8.scales, ++seed, 1);
    run(TunedKernel::route, stream, workspace, {});
    route_plan(stream, {picks, counts, weights, 0, start, rows, slot, token_of, gate_of, alignment}, workspace);
  }

  void run(TunedKernel kernel, cudaStream_t stream, Workspace workspace, const Tiling& tiling) const {
    switch (kernel) {
      case TunedKernel::norm:
        return mix_norm(stream,
                        {.x_in = x,
                         .x0 = x0,
                         .resid_lambda = lambdas.slice(0, 1),
                         .x0_lambda = lambdas.slice(1, 1),
                         .x = x,
                         .n = n,
                         .rstd = rstd,
                         .add = {y, slot, weights, shared}},
                        tiling);
      case TunedKernel::route:
        return norm_route(stream, {x, router_w, bias, n, rstd, {}, picks, probs, weights, counts}, tiling);
      case TunedKernel::rope:
        return qk_norm_rope(stream, {.qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T}, tiling);
      case TunedKernel::rope_grad:
        return qk_norm_rope_grad(stream, {.dqkv = dqkv, .qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T},
                                 workspace, tiling);
      case TunedKernel::permute:
        if (n8) return permute(stream, {.token_of = token_of, .x8 = n8, .out8 = y8, .slot = slot}, workspace, tiling);
        return permute(stream, {.token_of = token_of, .x = n, .out = y, .slot = slot}, workspace, tiling);
    }
  }

 private:
  static void fill(cudaStream_t stream, const Tensor& t, uint32_t seed, float range) {
    constexpr int blocks = 1056;
    if (t.dtype == DType::fp8_e4m3) {
      fill_kernel<<<blocks, 256, 0, stream>>>(t.as<uint8_t>(), t.numel(), seed, range);
    } else {
      dispatch("tiling", t.dtype,
               [&]<class S>(S) { fill_kernel<<<blocks, 256, 0, stream>>>(t.as<S>(), t.numel(), seed, range); });
    }
    ASSAY_CUDA_LAUNCHED("tiling", t.describe());
  }
};

// As many rows as fit, halved from the run's; 0 if hardly any do.
int64_t rows_that_fit(const TilingRequest& r) {
  for (int64_t N = std::min(r.tokens, most_rows); N >= least_rows; N /= 2) {
    Scratch count;
    Trial(r, N, count);
    if (count.used <= r.bytes) return N;
  }
  return 0;
}

class Events {
 public:
  explicit Events(size_t count) : events_(count) {
    for (cudaEvent_t& e : events_) ASSAY_CUDA_CHECK("tiling", cudaEventCreate(&e));
  }
  ~Events() {
    for (cudaEvent_t e : events_)
      if (e != nullptr) cudaEventDestroy(e);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  cudaEvent_t operator[](size_t i) const { return events_[i]; }

 private:
  std::vector<cudaEvent_t> events_;
};

// Medians. The candidates take turns, so that a clock that rises or falls meanwhile meets them all.
std::array<double, 3> time_candidates(cudaStream_t stream, const Knob& knob, Tiling tiling,
                                      const std::function<void(const Tiling&)>& kernel) {
  const size_t count = knob.candidates.size();
  const Events events(2 * count * rounds);
  for (size_t i = 0; i < count * rounds; ++i) {
    tiling.*knob.value = knob.candidates[i % count];
    ASSAY_CUDA_CHECK("tiling", cudaEventRecord(events[2 * i], stream));
    kernel(tiling);
    ASSAY_CUDA_CHECK("tiling", cudaEventRecord(events[2 * i + 1], stream));
  }
  ASSAY_CUDA_CHECK("tiling", cudaStreamSynchronize(stream), knob.name);
  std::array<double, 3> us{};
  for (size_t c = 0; c < count; ++c) {
    std::array<float, rounds - 1> ms{};
    for (size_t round = 1; round < rounds; ++round) {
      const size_t i = round * count + c;
      ASSAY_CUDA_CHECK("tiling", cudaEventElapsedTime(&ms[round - 1], events[2 * i], events[2 * i + 1]));
    }
    std::sort(ms.begin(), ms.end());
    us[c] = 1e3 * static_cast<double>(ms[ms.size() / 2]);
  }
  return us;
}

}  // namespace

std::vector<KnobTimes> time_tilings(cudaStream_t stream, const TilingRequest& request, Workspace workspace) {
  std::vector<KnobTimes> times;
  const int64_t N = rows_that_fit(request);
  if (N == 0) return times;
  Scratch scratch{static_cast<std::byte*>(request.memory)};
  const Trial trial(request, N, scratch);
  trial.fill(stream, workspace);
  for (const Knob& knob : knobs) {
    if (knob.kernel == TunedKernel::rope_grad && request.gradient_codes) continue;
    const auto kernel = [&](const Tiling& tiling) { trial.run(knob.kernel, stream, workspace, tiling); };
    times.push_back({&knob, time_candidates(stream, knob, chosen_tiling(times), kernel)});
  }
  return times;
}

std::string describe(const std::vector<KnobTimes>& times) {
  if (times.empty()) return "tiling: by width alone, there is no memory to time kernels in";
  std::string text;
  for (const KnobTimes& k : times) {
    const size_t best = fastest(k.us);
    const int value = k.knob->candidates[best];
    const auto [least, most] = std::minmax_element(k.us.begin(), k.us.end());
    char measured[64];
    std::snprintf(measured, sizeof(measured), " (%.0f us of %.0f..%.0f)", k.us[best], *least, *most);
    text += std::string(text.empty() ? "tiling: " : ", ") + k.knob->name + " " +
            (value == 0 ? "the usual" : std::to_string(value)) + " " + k.knob->unit + measured;
  }
  return text;
}

}  // namespace assay::cuda
