// Kernel lab: the memory-bound ops at the shapes of d12 (65,536 tokens, d = 768, 8 experts, top-2, V = 32,768), each
// with the bytes it must move and the bandwidth it reaches. They are checked in tests/engine_cuda.
// memory_lab [text]: only the ops whose name holds the text, once each, as a profiler wants it; "tiling": only the
// candidates of the tilings.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "engine/ops/cuda/check.h"
#include "engine/ops/cuda/launch.h"
#include "engine/ops/cuda/transpose_codes.h"
#include "engine/ops/cuda/tune.h"

using namespace assay;

namespace {

constexpr double copy_ceiling = 3.0e12;  // bytes read and written per second by a device-to-device copy on an H100
constexpr int64_t N = 65536, d = 768, H = 6, D = 128, T = 2048, E = 8, k = 2, h = 1024, V = 32768, loss_rows = 8192;
constexpr int64_t alignment = 128, R = N * k + E * alignment;

__device__ float hash_value(uint64_t i, uint32_t seed) {  // uniform in [-1, 1)
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull ^ static_cast<uint64_t>(seed) * 0xD1B54A32D192ED03ull;
  x ^= x >> 31, x *= 0xBF58476D1CE4E5B9ull, x ^= x >> 29;
  return static_cast<float>(x >> 40) / 8388608.0f - 1.0f;
}
__global__ void fill_kernel(void* to, DType dtype, int64_t n, uint32_t seed, float low, float high) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) {
    const float x = low + (high - low) * (hash_value(i, seed) + 1) / 2;
    if (dtype == DType::f32) static_cast<float*>(to)[i] = x;
    if (dtype == DType::bf16) static_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(__float_as_uint(x) >> 16);
    if (dtype == DType::i32) static_cast<int32_t*>(to)[i] = static_cast<int32_t>(x);
  }
}

Tensor make(DType dtype, std::initializer_list<int64_t> dims, float low = -1, float high = 1) {
  static uint32_t seed = 0;
  Tensor t(nullptr, dtype, dims);
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&t.data, t.bytes()), t.describe());
  fill_kernel<<<1024, 256>>>(t.data, dtype,
                             dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::i32 ? t.numel() : 0, ++seed,
                             low, high);
  return t;
}
Quantized make_fp8(ScaleMode mode, int64_t rows, int64_t columns) {
  const int64_t scales = mode == ScaleMode::tensorwise    ? 1
                         : mode == ScaleMode::rowwise     ? rows
                         : mode == ScaleMode::block_1x128 ? rows * ((columns + 127) / 128)
                                                          : (rows + 127) / 128 * ((columns + 127) / 128);
  return {make(DType::fp8_e4m3, {rows, columns}), make(DType::f32, {scales}, 0.01f, 0.02f), mode};
}
Quantized make_fp8_stack(int64_t G, int64_t rows, int64_t columns) {  // tensorwise
  return {make(DType::fp8_e4m3, {G, rows, columns}), make(DType::f32, {G}), ScaleMode::tensorwise};
}

cuda::Workspace workspace() {
  static constexpr size_t bytes = 64 << 20;
  static void* memory = [] {
    void* p = nullptr;
    ASSAY_CUDA_CHECK("lab", cudaMalloc(&p, bytes));
    return p;
  }();
  return {memory, bytes};
}

cudaStream_t stream;
std::string only;  // see the first lines

// Median of the runs of a captured graph, as the engine runs them.
void time_op(const char* name, double bytes, const std::function<void()>& op) {
  constexpr int runs = 15;
  if (!only.empty()) {
    if (std::string(name).find(only) != std::string::npos) op();
    ASSAY_CUDA_CHECK(name, cudaStreamSynchronize(stream));
    return;
  }
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  ASSAY_CUDA_CHECK(name, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  op();
  ASSAY_CUDA_CHECK(name, cudaStreamEndCapture(stream, &graph));
  ASSAY_CUDA_CHECK(name, cudaGraphInstantiate(&exec, graph, 0));
  std::vector<float> ms;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin), cudaEventCreate(&end);
  for (int i = 0; i < runs + 3; ++i) {
    cudaEventRecord(begin, stream);
    ASSAY_CUDA_CHECK(name, cudaGraphLaunch(exec, stream));
    cudaEventRecord(end, stream);
    ASSAY_CUDA_CHECK(name, cudaEventSynchronize(end));
    float x = 0;
    cudaEventElapsedTime(&x, begin, end);
    if (i >= 3) ms.push_back(x);
  }
  std::sort(ms.begin(), ms.end());
  const double seconds = ms[runs / 2] * 1e-3;
  std::printf("%-34s %8.1f us %8.1f MB %7.0f GB/s %5.0f %% of a copy\n", name, seconds * 1e6, bytes * 1e-6,
              bytes / seconds * 1e-9, 100 * bytes / seconds / copy_ceiling);
  cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
}

// The masters of d12, to codes in both orientations (the pass for their scales reads them once more) or copied in BF16.
void time_weights() {
  PrepareWeightsArgs codes, copies;
  double elements = 0;
  const auto add = [&](int64_t G, int64_t rows, int64_t columns) {
    const Tensor x = make(DType::f32, {G, rows, columns});
    codes.weights.push_back(
        {.x = x, .out = make_fp8_stack(G, rows, columns), .transposed = make_fp8_stack(G, columns, rows), .copy = {}});
    copies.weights.push_back({.x = x, .out = {}, .transposed = {}, .copy = make(DType::bf16, {G, rows, columns})});
    elements += static_cast<double>(x.numel());
  };
  for (int layer = 0; layer < 12; ++layer) {
    add(1, 3 * d, d), add(1, d, d);                          // attention
    add(E, h, d), add(E, d, h), add(1, h, d), add(1, d, h);  // routed and shared experts
  }
  time_op("prepare_weights to fp8", 10 * elements, [&] { cuda::prepare_weights(stream, codes, workspace()); });
  time_op("prepare_weights to bf16", 6 * elements, [&] { cuda::prepare_weights(stream, copies, workspace()); });
  time_op("quantize weight by weight", 10 * elements, [&] {
    for (const WeightForms& w : codes.weights)
      cuda::quantize(stream, {.x = w.x, .out = w.out, .transposed = w.transposed}, workspace());
  });
  time_op("cast weight by weight", 6 * elements, [&] {
    for (const WeightForms& w : copies.weights) cuda::cast(stream, {w.x, w.copy});
  });
}

// The candidates of every tiled kernel, as a run times them when it is opened, in BF16 and in FP8; then the fixed
// tiling.
void print_tilings() {
  TilingRequest request{
      .tokens = N, .T = T, .d = d, .heads = H, .head_dim = D, .experts = E, .top_k = k, .bytes = size_t{2} << 30};
  ASSAY_CUDA_CHECK("lab", cudaMalloc(&request.memory, request.bytes));
  for (const bool codes : {false, true}) {
    request.routed_codes = request.gradient_codes = codes;
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<cuda::KnobTimes> times = cuda::time_tilings(stream, request, workspace());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("\n%s tilings, timed in %.3f s\n", codes ? "FP8" : "BF16", seconds);
    for (const cuda::KnobTimes& t : times) {
      std::printf("%-10s", t.knob->name);
      for (size_t c = 0; c < t.us.size(); ++c)
        std::printf(" %s%d: %.1f us,", c == cuda::fastest(t.us) ? "*" : "", t.knob->candidates[c], t.us[c]);
      std::printf(" %s\n", t.knob->unit);
    }
  }
  cudaFree(request.memory);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) only = argv[1];
  cudaStreamCreate(&stream);
  workspace();  // allocated before any capture
  const DType bf = DType::bf16, f32 = DType::f32, i32 = DType::i32;
  const double U = 2.0 * N * d;  // one BF16 pass over the residual stream
  const Tensor x = make(bf, {N, d}), x0 = make(bf, {N, d}), n = make(bf, {N, d}), dx = make(bf, {N, d}),
               dn = make(bf, {N, d}), dx0 = make(bf, {N, d}), shared = make(bf, {N, d}), out = make(bf, {N, d});
  const Tensor rstd = make(f32, {N}, 0.5f, 2), resid = make(f32, {1}, 0.99f, 1), skip = make(f32, {1}, 0, 0.01f),
               resid_grad = make(f32, {1}), skip_grad = make(f32, {1});
  const Tensor table = make(f32, {V, d}), table_grad = make(f32, {V, d});
  // Token frequencies of text: a power law over the vocabulary, with a few tokens in thousands of rows.
  std::vector<int32_t> ids(N);
  for (int64_t i = 0; i < N; ++i) {
    const double u = static_cast<double>(i * 2654435761u % N) / N;
    ids[static_cast<size_t>(i)] = static_cast<int32_t>(std::min<double>(V - 1, std::pow(V, u) - 1));
  }
  const Tensor tokens = make(i32, {N});
  cudaMemcpy(tokens.data, ids.data(), tokens.bytes(), cudaMemcpyHostToDevice);

  std::printf("N = %lld, d = %lld, E = %lld, top-%lld, V = %lld; U = %.1f MB\n", static_cast<long long>(N),
              static_cast<long long>(d), static_cast<long long>(E), static_cast<long long>(k),
              static_cast<long long>(V), U * 1e-6);
  time_op("copy (cast bf16 to bf16)", 2 * U, [&] { cuda::cast(stream, {x, out}); });
  time_op("embed_norm", 3 * U, [&] { cuda::embed_norm(stream, {tokens, table, x, rstd}); });
  time_op("embed_norm_grad", 4 * U, [&] {
    cuda::embed_norm_grad(stream, {tokens, x, rstd, dx, table_grad}, workspace());
  });
  time_op("embed_grad", U, [&] { cuda::embed_grad(stream, {tokens, dx, table_grad}, workspace()); });
  time_op("mix_norm", 4 * U, [&] { cuda::mix_norm(stream, {x, x0, resid, skip, x, n, rstd}); });
  time_op("mix_norm, fixed tiling", 4 * U, [&] {
    cuda::mix_norm(stream, {x, x0, resid, skip, x, n, rstd}, cuda::fixed_tiling);
  });
  time_op("mix_norm, no lambdas", 2 * U, [&] { cuda::mix_norm(stream, {.x_in = x, .n = n, .rstd = rstd}); });
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
    const Quantized n8 = make_fp8(mode, N, d);
    time_op((std::string("mix_norm + fp8 ") + to_string(mode)).c_str(), 4.5 * U, [&] {
      cuda::mix_norm(stream, {x, x0, resid, skip, x, n, rstd, n8});
    });
  }
  time_op("mix_norm_grad", 7 * U, [&] {
    cuda::mix_norm_grad(stream, {dn, n, rstd, x0, resid, skip, dx, dx0, resid_grad, skip_grad}, workspace());
  });
  time_op("mix_norm_grad, fixed tiling", 7 * U, [&] {
    cuda::mix_norm_grad(stream, {dn, n, rstd, x0, resid, skip, dx, dx0, resid_grad, skip_grad}, workspace(),
                        cuda::fixed_tiling);
  });
  time_op("mix_norm_grad, no lambdas", 4 * U,
          [&] { cuda::mix_norm_grad(stream, {.dn = dn, .n = n, .rstd = rstd, .dx = dx}, workspace()); });
  const Tensor grad_state = make(f32, {2}, 0.1f, 0.2f);
  const DelayedScale grad_scale{grad_state.as<float>(), grad_state.as<float>() + 1};
  const Quantized dx8 = make_fp8(ScaleMode::tensorwise, N, d), dx8t = make_fp8(ScaleMode::tensorwise, d, N);
  MixNormGradArgs mix8{dn, n, rstd, x0, resid, skip, dx, dx0, resid_grad, skip_grad, dx8, dx8t, grad_scale};
  time_op("mix_norm_grad + fp8, both", 8 * U, [&] { cuda::mix_norm_grad(stream, mix8, workspace()); });
  time_op("mix_norm_grad + fp8, both, fixed t.", 8 * U,
          [&] { cuda::mix_norm_grad(stream, mix8, workspace(), cuda::fixed_tiling); });
  const Quantized n8t = make_fp8(ScaleMode::tensorwise, d, N);
  mix8.n8t = n8t;
  time_op("the same, + n transposed", 8.5 * U, [&] { cuda::mix_norm_grad(stream, mix8, workspace()); });
  mix8.n8t = mix8.dx8t = {};
  time_op("mix_norm_grad + fp8", 7.5 * U, [&] { cuda::mix_norm_grad(stream, mix8, workspace()); });
  MixNormGradArgs norm8{.dn = dn, .n = n, .rstd = rstd, .dx = dx, .dx8 = dx8, .dx8t = dx8t, .dx8_scale = grad_scale};
  time_op("mix_norm_grad, no l. + fp8, both", 5 * U, [&] { cuda::mix_norm_grad(stream, norm8, workspace()); });
  QuantizeArgs separate{.x = dx, .out = dx8, .transposed = dx8t, .delayed = grad_scale, .calibrate = false};
  time_op("quantize [N, d], both", 2 * U, [&] { cuda::quantize(stream, separate, workspace()); });
  separate.transposed = {};
  time_op("quantize [N, d]", 1.5 * U, [&] { cuda::quantize(stream, separate, workspace()); });
  separate.transposed = dx8t, separate.out = {};
  time_op("quantize [N, d], transposed", 1.5 * U, [&] { cuda::quantize(stream, separate, workspace()); });

  const Tensor qkv = make(bf, {N, 3, H, D}), dqkv = make(bf, {N, 3, H, D}), cos = make(f32, {T, D / 2}),
               sin = make(f32, {T, D / 2}), qk_rstd = make(f32, {N, 2, H}, 0.5f, 2), gate_w = make(f32, {H, 12}),
               gate_w_grad = make(f32, {H, 12});
  time_op("qk_norm_rope", 4 * U,
          [&] { cuda::qk_norm_rope(stream, {.qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T}); });
  time_op("qk_norm_rope, fixed tiling", 4 * U, [&] {
    cuda::qk_norm_rope(stream, {.qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T}, cuda::fixed_tiling);
  });
  time_op("qk_norm_rope + value embedding", 8 * U, [&] {
    cuda::qk_norm_rope(stream, {qkv, cos, sin, qk_rstd, T, tokens, table, n, gate_w});
  });
  time_op("qk_norm_rope_grad", 6 * U, [&] {
    cuda::qk_norm_rope_grad(stream, {.dqkv = dqkv, .qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T},
                            workspace());
  });
  QkNormRopeGradArgs rope8{.dqkv = dqkv, .qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T};
  rope8.dqkv8 = make_fp8(ScaleMode::tensorwise, N, 3 * d), rope8.dqkv8t = make_fp8(ScaleMode::tensorwise, 3 * d, N);
  rope8.dqkv8_scale = grad_scale;
  time_op("qk_norm_rope_grad to fp8, both", 8 * U, [&] { cuda::qk_norm_rope_grad(stream, rope8, workspace()); });
  rope8.dqkv8t = {};
  time_op("qk_norm_rope_grad + fp8", 8.5 * U, [&] { cuda::qk_norm_rope_grad(stream, rope8, workspace()); });
  time_op("qk_norm_rope_grad + value embed.", 10 * U, [&] {
    cuda::qk_norm_rope_grad(
        stream, {dqkv, qkv, cos, sin, qk_rstd, T, tokens, table, n, gate_w, table_grad, gate_w_grad, dn}, workspace());
  });

  const Tensor router_w = make(f32, {E, d}, -0.05f, 0.05f), router_w_grad = make(f32, {E, d}),
               bias = make(f32, {E}, 0, 0.01f);
  const Tensor picks = make(i32, {N, k}), probs = make(f32, {N, k}), weights = make(f32, {N, k}),
               counts = make(i32, {E}), dweights = make(f32, {N, k});
  const NormRouteArgs route{x, router_w, bias, n, rstd, {}, picks, probs, weights, counts};
  cuda::norm_route(stream, route);  // picks for what follows
  time_op("norm_route", 2 * U, [&] { cuda::norm_route(stream, route); });
  time_op("norm_route, fixed tiling", 2 * U, [&] { cuda::norm_route(stream, route, cuda::fixed_tiling); });
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise}) {
    NormRouteArgs with = route;
    with.n8 = make_fp8(mode, N, d);
    time_op((std::string("norm_route + fp8 ") + to_string(mode)).c_str(), 2.5 * U,
            [&] { cuda::norm_route(stream, with); });
  }
  const Tensor many_w = make(f32, {64, d}, -0.05f, 0.05f), many_bias = make(f32, {64}), many_counts = make(i32, {64}),
               many_picks = make(i32, {N, k});
  time_op("norm_route, 64 experts", 2 * U, [&] {
    cuda::norm_route(stream, {x, many_w, many_bias, n, rstd, {}, many_picks, probs, weights, many_counts});
  });
  const Tensor start = make(i32, {E}), rows = make(i32, {E}), slot = make(i32, {N, k}), token_of = make(i32, {R}),
               gate_of = make(f32, {R});
  time_op("route_plan", 4.0 * N * k * 5, [&] {
    cuda::route_plan(stream, {picks, counts, weights, 0, start, rows, slot, token_of, gate_of, alignment}, workspace());
  });
  const Tensor xg = make(bf, {R, d});
  const double R_rows = 2.0 * R * d;
  time_op("permute", R_rows + U,
          [&] { cuda::permute(stream, {.token_of = token_of, .x = n, .out = xg}, workspace()); });
  time_op("permute, gated", R_rows + U,
          [&] { cuda::permute(stream, {.token_of = token_of, .x = n, .out = xg, .gate = gate_of}, workspace()); });
  time_op("permute by slots", R_rows + U,
          [&] { cuda::permute(stream, {.token_of = token_of, .x = n, .out = xg, .slot = slot}, workspace()); });
  time_op("permute by slots, gated", R_rows + U, [&] {
    cuda::permute(stream, {.token_of = token_of, .x = n, .out = xg, .gate = gate_of, .slot = slot}, workspace());
  });
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::block_1x128}) {
    const Quantized n8 = make_fp8(mode, N, d), xg8 = make_fp8(mode, R, d);
    time_op((std::string("permute fp8 ") + to_string(mode)).c_str(), (R_rows + U) / 2,
            [&] { cuda::permute(stream, {.token_of = token_of, .x8 = n8, .out8 = xg8}, workspace()); });
    time_op((std::string("permute by slots fp8 ") + to_string(mode)).c_str(), (R_rows + U) / 2,
            [&] { cuda::permute(stream, {.token_of = token_of, .x8 = n8, .out8 = xg8, .slot = slot}, workspace()); });
  }
  const Quantized row_codes = make_fp8(ScaleMode::tensorwise, R, d),
                  column_codes = make_fp8(ScaleMode::tensorwise, d, R);
  const Tensor code_scale = make(f32, {1}, 0.01f, 0.02f);
  time_op("permute to fp8, gated", R_rows / 2 + U, [&] {
    cuda::permute(stream, {.token_of = token_of, .x = n, .out8 = row_codes, .scale = code_scale, .gate = gate_of},
                  workspace());
  });
  time_op("permute to fp8 transposed", R_rows / 2 + U, [&] {
    cuda::permute(stream, {.token_of = token_of, .x = n, .out8t = column_codes, .scale = code_scale}, workspace());
  });
  time_op("permute to fp8, both, gated", R_rows + U, [&] {
    cuda::permute(
        stream,
        {.token_of = token_of, .x = n, .out8 = row_codes, .out8t = column_codes, .scale = code_scale, .gate = gate_of},
        workspace());
  });
  time_op("combine, shared, residual", R_rows + 3 * U, [&] {
    cuda::combine(stream, {xg, slot, weights, shared, x, x});
  });
  time_op("mix_norm + expert sum", k * U + 5 * U, [&] {
    cuda::mix_norm(stream, {.x_in = x,
                            .x0 = x0,
                            .resid_lambda = resid,
                            .x0_lambda = skip,
                            .x = x,
                            .n = n,
                            .rstd = rstd,
                            .add = {xg, slot, weights, shared}});
  });
  time_op("mix_norm + expert sum, fixed t.", k * U + 5 * U, [&] {
    cuda::mix_norm(stream, {x, x0, resid, skip, x, n, rstd, {}, {xg, slot, weights, shared}}, cuda::fixed_tiling);
  });
  const Tensor gate_grads = make(f32, {R});
  const MoeNormGradArgs moe{.dxg = xg,
                            .slot = slot,
                            .dn_shared = shared,
                            .gate_grad = gate_grads,
                            .picks = picks,
                            .probs = probs,
                            .weights = weights,
                            .n = n,
                            .rstd = rstd,
                            .router_w = router_w,
                            .router_w_grad = router_w_grad,
                            .dx = dx};
  time_op("moe_norm_grad", k * U + 4 * U, [&] { cuda::moe_norm_grad(stream, moe, workspace()); });
  MoeNormGradArgs moe8 = moe;
  const Tensor dx_state = make(f32, {2}, 0.1f, 0.2f);
  moe8.dx8 = make_fp8(ScaleMode::tensorwise, N, d), moe8.dx8t = make_fp8(ScaleMode::tensorwise, d, N);
  moe8.dx8_scale = {dx_state.as<float>(), dx_state.as<float>() + 1};
  time_op("moe_norm_grad + fp8, both", k * U + 5 * U, [&] { cuda::moe_norm_grad(stream, moe8, workspace()); });
  moe8.n8t = n8t;
  time_op("the same, + n transposed", k * U + 5.5 * U, [&] { cuda::moe_norm_grad(stream, moe8, workspace()); });

  const Tensor du = make(bf, {N, h}), hidden = make(bf, {N, h}, 0, 1), dz = make(bf, {N, h}), gate = make(f32, {N}),
               gate_grad = make(f32, {N});
  const double W = 2.0 * N * h;
  time_op("relu2 in place, [N, h]", 2 * W, [&] { cuda::relu2(stream, {du, du}); });
  time_op("relu2_grad", 3 * W, [&] { cuda::relu2_grad(stream, {.du = du, .h = hidden, .dz = dz}); });
  time_op("relu2_grad, gated", 3 * W, [&] { cuda::relu2_grad(stream, {du, hidden, dz, gate, gate_grad}); });

  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128, ScaleMode::block_128x128}) {
    const Quantized q = make_fp8(mode, N, h), qt = make_fp8(mode, h, N);
    const std::string name = std::string("quantize ") + to_string(mode);
    time_op((name + ", own amax").c_str(), 1.5 * W, [&] { cuda::quantize(stream, {.x = du, .out = q}, workspace()); });
    time_op((name + ", both").c_str(), 2 * W,
            [&] { cuda::quantize(stream, {.x = du, .out = q, .transposed = qt}, workspace()); });
    if (mode != ScaleMode::tensorwise) continue;
    const Tensor state = make(f32, {2}, 0.1f, 0.2f);
    const DelayedScale delayed{state.as<float>(), state.as<float>() + 1};
    time_op("quantize delayed", 1.5 * W,
            [&] { cuda::quantize(stream, {.x = du, .out = q, .delayed = delayed}, workspace()); });
    time_op("quantize delayed, both", 2 * W,
            [&] { cuda::quantize(stream, {.x = du, .out = q, .transposed = qt, .delayed = delayed}, workspace()); });
  }

  const Tensor logits = make(bf, {loss_rows, V}, -5, 5), logits2 = make(bf, {loss_rows, 50304}, -5, 5),
               targets = make(i32, {loss_rows}, 0, V - 1), loss = make(f32, {loss_rows});
  const Quantized grad8 = make_fp8(ScaleMode::tensorwise, loss_rows, V),
                  grad8t = make_fp8(ScaleMode::tensorwise, V, loss_rows);
  time_op("softcap_xent, V = 32768", 4.0 * loss_rows * V, [&] {
    cuda::softcap_xent(stream, {logits, targets, loss, 15.0, 1e-5}, workspace());
  });
  time_op("softcap_xent into FP8, both", 6.0 * loss_rows * V, [&] {
    SoftcapXentArgs a{logits, targets, loss, 15.0, 1e-5};
    a.grad8 = grad8, a.grad8t = grad8t;
    cuda::softcap_xent(stream, a, workspace());
  });
  time_op("the codes' transposition alone", 2.0 * loss_rows * V,
          [&] { cuda::transpose_codes(stream, grad8.codes, grad8t.codes); });
  time_op("softcap_xent forward only", 2.0 * loss_rows * V, [&] {
    cuda::softcap_xent(stream, {logits, targets, loss, 15.0, 1e-5, true}, workspace());
  });
  time_op("softcap_xent, V = 50304", 4.0 * loss_rows * 50304, [&] {
    cuda::softcap_xent(stream, {logits2, targets, loss, 15.0, 1e-5}, workspace());
  });

  const int64_t params = V * d;
  const Tensor m = make(f32, {params}), v = make(f32, {params}, 0, 1), sums = make(f32, {2});
  time_op("adamw", 28.0 * params, [&] {
    cuda::adamw(stream, {table.view({params}), table_grad.view({params}), m, v, 1e-3, 0.8, 0.95, 1e-10, 0.0, 10});
  });
  double* total = reinterpret_cast<double*>(sums.data);
  time_op("sum_squares f32", 4.0 * params, [&] { cuda::sum_squares(stream, {{table_grad}, total}, workspace()); });
  time_op("sum_squares bf16", U, [&] { cuda::sum_squares(stream, {{x}, total}, workspace()); });
  time_op("sum of N losses", 4.0 * N, [&] { cuda::sum(stream, {rstd, total}, workspace()); });
  time_op("add bf16", 3 * U, [&] { cuda::add(stream, {x0, dx}); });
  time_op("cast f32 to bf16", 6.0 * params, [&] { cuda::cast(stream, {table, x.slice(0, V)}); });
  time_op("fill_zero", U, [&] { cuda::fill_zero(stream, {dx0}); });
  time_weights();
  if (only.empty() || only == "tiling") print_tilings();
  return 0;
}
