// Kernel lab: the products of the experts and the weight gradients, each through its launcher against a plain
// reference, then timed at the shapes of d12 and d24.
#include <cstdio>
#include <random>
#include <type_traits>

#include "bench/cuda/grouped_reference.cuh"
#include "engine/ops/cuda/codes_launch.cuh"
#include "engine/ops/cuda/wgrad_launch.cuh"

using namespace assay::cuda;
using namespace assay::cuda::lab;

namespace {

using bf = __nv_bfloat16;
using e4 = __nv_fp8_e4m3;
template <GemmType type>
using AOf =
    std::conditional_t<type == GemmType::bf16, bf, std::conditional_t<type == GemmType::e5m2_e4m3, __nv_fp8_e5m2, e4>>;
template <GemmType type>
using BOf = std::conditional_t<type == GemmType::bf16, bf, e4>;

// Rows of the groups, which begin at multiples of 128; dense: one group that the host knows.
struct Rows {
  std::vector<int> counts;
  bool dense = false;
  std::vector<int> start() const {
    std::vector<int> s;
    int next = 0;
    for (int c : counts) s.push_back(next), next += (c + 127) / 128 * 128;
    return s;
  }
  int all() const { return dense ? counts[0] : std::max(128, start().back() + (counts.back() + 127) / 128 * 128); }
  int used() const {
    int n = 0;
    for (int c : counts) n += c;
    return n;
  }
};

template <class Params>
void set_rows(Params& p, const Rows& rows, const Buffer<int>& start, const Buffer<int>& counts) {
  p.groups = static_cast<int>(rows.counts.size());
  p.group_rows = rows.all();
  if (!rows.dense) p.start = start, p.rows = counts;
}

void print_time(double ms, double operations) {
  std::printf("  ms=%.4f  TFLOP/s=%.0f", ms, operations / ms * 1e-9);
}
void end_line() {
  std::printf("\n");
  std::fflush(stdout);
}

// C: a GroupedConfig or a CodesConfig.
template <class C>
void product(const char* name, const Rows& rows, int n, int k, bool timed) {
  constexpr bool codes = requires {
    C::transposed;
  };
  constexpr bool fp8 = C::type != GemmType::bf16, grad = C::epilogue == Epilogue::relu2_grad;
  constexpr Scales kind = [] {
    if constexpr (codes)
      return Scales::tensorwise;
    else
      return C::scales;
  }();
  using A = AOf<C::type>;
  using B = BOf<C::type>;
  using O = std::conditional_t<codes, A, bf>;
  using H = std::conditional_t<codes, e4, bf>;
  const int R = rows.all(), groups = static_cast<int>(rows.counts.size()), parts = (n + C::bn - 1) / C::bn;
  const int blocks = (k + 127) / 128;
  const Buffer<int> start(rows.start()), counts(rows.counts);
  const Buffer<A> a(size_t(R) * k);
  const Buffer<B> b(size_t(groups) * n * k);
  const Buffer<O> out(size_t(R) * n), expected(size_t(R) * n), transposed(codes ? size_t(R) * n : 0);
  const Buffer<H> hidden(size_t(R) * n);
  const Buffer<float> partial(size_t((R + 127) / 128 * 128) * parts), row_sum(R), row_expected(R);
  fill(a, 1u, 2.0f);
  fill(b, 7u, fp8 ? 2.0f : 0.05f);
  fill(hidden, 11u, 3.0f);
  make_hidden<<<1024, 256>>>(static_cast<H*>(hidden), hidden.size());
  out.set_bytes(0x7f), transposed.set_bytes(0x7f), partial.set_bytes(0xff), row_expected.set_bytes(0);

  const float out_scale = codes ? 0.02f : 1.0f, hidden_scale = codes ? 0.5f : 1.0f;
  const Buffer<float> cells(std::vector<float>{out_scale, 0, hidden_scale});  // the second: amax
  const size_t of_a = kind == Scales::tensorwise ? 1 : kind == Scales::rowwise ? R : size_t(R) * blocks;
  const size_t of_b = kind == Scales::tensorwise ? groups
                      : kind == Scales::rowwise  ? size_t(groups) * n
                                                 : size_t(groups) * ((n + 127) / 128) * blocks;
  const Buffer<float> a_scale(of_a), b_scale(of_b);
  fill_scales<<<1024, 256>>>(static_cast<float*>(a_scale), of_a, 5u);
  fill_scales<<<1024, 256>>>(static_cast<float*>(b_scale), of_b, 9u);
  if (kind == Scales::tensorwise) {
    std::vector<float> of_groups;
    for (int g = 0; g < groups; ++g) of_groups.push_back(0.5f + 0.1f * g);
    ok(cudaMemcpy(b_scale, of_groups.data(), b_scale.bytes(), cudaMemcpyHostToDevice));
    ok(cudaMemcpy(a_scale, std::vector<float>{0.01f}.data(), 4, cudaMemcpyHostToDevice));
  }

  GroupedParams p{};
  set_rows(p, rows, start, counts);
  p.a_scale = a_scale, p.b_scale = b_scale;
  p.out_scale = cells, p.out_amax = cells + 1, p.hidden_scale = cells + 2;
  p.gate_partial = partial;
  p.alpha = p.beta = 1.0f;
  Product x{.op = name, .a = a, .b = b, .out = out, .hidden = hidden, .rows = R, .n = n, .k = k};
  if (codes) x.transposed = transposed;
  const auto launch = [&] {
    if constexpr (codes)
      launch_codes<C>(nullptr, x, p);
    else
      launch_product<C>(nullptr, x, p);
  };
  launch();
  const unsigned most = std::max(1, *std::max_element(rows.counts.begin(), rows.counts.end()));
  const ReferenceScales scales{fp8 ? static_cast<const float*>(a_scale) : nullptr, b_scale, kind, n, blocks};
  product_reference<A, B, O, H><<<dim3(most, (n + 255) / 256, groups), 256>>>(
      a, b, expected, hidden, row_expected, start, counts, n, k, scales, out_scale, hidden_scale, C::epilogue);
  ok(cudaGetLastError());
  std::printf("%-28s n=%d k=%d rows=%d error=%.3e", name, n, k, R, relative_error<O>(out, expected, start, counts, n));
  if (grad) {
    add_partials<<<(R + 255) / 256, 256>>>(partial, row_sum, R, parts);
    std::printf(" row_sum error=%.3e", relative_error<float>(row_sum, row_expected, start, counts, 1));
  }
  if constexpr (codes) {
    if (C::transposed) {
      const Buffer<unsigned long long> differences(std::vector<unsigned long long>{0});
      count_differences<<<dim3(64, groups), 256>>>(reinterpret_cast<uint8_t*>(static_cast<O*>(out)),
                                                   reinterpret_cast<uint8_t*>(static_cast<O*>(transposed)), start,
                                                   counts, R, n, differences);
      std::printf(" transposed differences=%llu", differences.host()[0]);
    }
  }
  if (timed) print_time(median_ms(launch), 2.0 * rows.used() * n * k);
  end_line();
}

// Long sums of one group are compared with those of the kernel for groups: the reference would take too long.
template <class C>
void wgrad(const char* name, const Rows& rows, int m, int n, bool timed) {
  const int R = rows.all(), groups = static_cast<int>(rows.counts.size());
  using A = AOf<C::type>;
  using B = BOf<C::type>;
  const Buffer<int> start(rows.start()), counts(rows.counts);
  const Buffer<A> a(size_t(R) * m);
  const Buffer<B> b(size_t(R) * n);
  const size_t size = size_t(groups) * m * n;
  const Buffer<float> dw(size), expected(size), scales(std::vector<float>{C::fp8 ? 0.5f : 1.0f, C::fp8 ? 0.25f : 1.0f});
  const Buffer<std::byte> scratch(64u << 20);
  const Workspace workspace(scratch, scratch.bytes());
  const size_t ra = C::fp8 ? 1 : m, ca = C::fp8 ? R : 1, rb = C::fp8 ? 1 : n, cb = C::fp8 ? R : 1;
  fill(a, 1u, 2.0f);
  fill(b, 7u, 2.0f);
  if (!rows.dense) {
    zero_padding<A><<<dim3(8, groups), 128>>>(a, start, counts, m, ra, ca);
    zero_padding<B><<<dim3(8, groups), 128>>>(b, start, counts, n, rb, cb);
  }
  fill(dw, 3u, 1.0f);
  fill(expected, 3u, 1.0f);
  const WeightGradient x{name, a, b, R, m, n, R / groups};
  WgradParams p{};
  set_rows(p, rows, start, counts);
  p.accumulate = true;
  p.dw = dw;
  p.a_scale = scales, p.b_scale = scales + 1;
  WgradParams in_turns = p;
  in_turns.start = start, in_turns.rows = counts, in_turns.dw = expected;
  launch_wgrad<C>(nullptr, x, p, workspace);
  const bool is_long = rows.dense && R > 25000;
  if (is_long)
    launch_wgrad<C>(nullptr, x, in_turns, workspace);
  else
    wgrad_reference<A, B><<<dim3((n + 127) / 128, m, groups), 128>>>(a, b, expected, start, counts, m, n, ra, ca, rb,
                                                                     cb, C::fp8 ? 0.125f : 1.0f);
  ok(cudaGetLastError());
  const Buffer<int> zero(std::vector<int>{0}), all(std::vector<int>{groups * m});
  std::printf(
      "%-28s m=%d n=%d rows=%d %s error%s=%.3e", name, m, n, R,
      rows.dense &&
              plan_wgrad(wgrad_tiles<C>(x, 1), (R + C::k_per_stage - 1) / C::k_per_stage, multiprocessors()).chunks > 0
          ? "shared evenly"
          : "in turns",
      is_long ? " to turns" : "", relative_error<float>(dw, expected, zero, all, n));
  const double operations = 2.0 * rows.used() * m * n;
  if (timed) print_time(median_ms([&] { launch_wgrad<C>(nullptr, x, p, workspace); }), operations);
  if (timed && is_long) {
    std::printf("  in turns:");
    print_time(median_ms([&] { launch_wgrad<C>(nullptr, x, in_turns, workspace); }), operations);
  }
  end_line();
}

constexpr auto B16 = GemmType::bf16, F = GemmType::e4m3_e4m3, D = GemmType::e5m2_e4m3;  // D: of gradients
using WB = WgradConfig<B16, 256, 4>;
using WF = WgradConfig<F, 256, 4>;
using WD = WgradConfig<D, 256, 4>;
template <GemmType type, Epilogue epilogue, Scales scales, int bn = 256>
using Scaled = GroupedConfig<type, epilogue, false, bn, false, scales>;

void codes(const Rows& rows, int n, bool timed) {
  product<CodesConfig<F, Epilogue::relu2, false>>("fp8 relu2->e4m3", rows, n, 768, timed);
  product<CodesConfig<F, Epilogue::relu2, true>>("fp8 relu2->e4m3+T", rows, n, 768, timed);
  product<CodesConfig<D, Epilogue::relu2_grad, false>>("e5m2 relu2_grad->e5m2", rows, n, 768, timed);
  product<CodesConfig<D, Epilogue::relu2_grad, true>>("e5m2 relu2_grad->e5m2+T", rows, n, 768, timed);
  product<CodesConfig<F, Epilogue::relu2_grad, true>>("e4m3 relu2_grad->e4m3+T", rows, n, 768, timed);
}

void experts(const Rows& rows, bool timed) {
  product<GroupedConfig<B16, Epilogue::none>>("bf16", rows, 768, 1024, timed);
  product<GroupedConfig<B16, Epilogue::relu2>>("bf16 relu2", rows, 1024, 768, timed);
  product<GroupedConfig<B16, Epilogue::relu2_grad>>("bf16 relu2_grad", rows, 1024, 768, timed);
  product<GroupedConfig<D, Epilogue::none>>("e5m2->bf16", rows, 768, 1024, timed);
  for (const auto& [n, k] : {std::pair{1024, 768}, std::pair{768, 1024}}) {
    product<GroupedConfig<F, Epilogue::none>>("fp8 tensorwise->bf16", rows, n, k, timed);
    product<Scaled<F, Epilogue::none, Scales::rowwise>>("fp8 rowwise->bf16", rows, n, k, timed);
    product<Scaled<F, Epilogue::none, Scales::blockwise>>("fp8 blockwise->bf16", rows, n, k, timed);
    product<Scaled<F, Epilogue::none, Scales::blockwise, 128>>("fp8 blockwise->bf16, bn 128", rows, n, k, timed);
  }
  codes(rows, 1024, timed);
  if (!timed) codes(rows, 384, false);  // half a tile at the edge
  wgrad<WB>("wgrad bf16", rows, 1024, 768, timed);
  wgrad<WF>("wgrad e4m3", rows, 768, 1024, timed);
  wgrad<WD>("wgrad e5m2", rows, 1024, 768, timed);
}

}  // namespace

int main() {
  experts({{0, 1, 127, 128, 129, 300, 0, 1000}}, false);
  experts({{0, 2000, 0, 0}}, false);
  wgrad<WD>("wgrad e5m2", {{20000}, true}, 1040, 400, false);
  wgrad<WF>("wgrad e4m3", {{8192}, true}, 1024, 768, false);
  wgrad<WB>("wgrad bf16", {{10008}, true}, 1000, 136, false);

  const Rows even{std::vector<int>(8, 16384)}, shared{{65536}, true};
  experts(even, true);
  experts({{20000, 9000, 16384, 12000, 24000, 16688, 18000, 15000}}, true);
  codes(shared, 1024, true);
  product<GroupedConfig<F, Epilogue::residual>>("fp8 + residual", shared, 768, 768, true);
  product<GroupedConfig<F, Epilogue::residual, false, 192>>("the same, bn 192", shared, 768, 768, true);
  product<GroupedConfig<F, Epilogue::residual, false, 128>>("the same, bn 128", shared, 768, 768, true);
  for (const auto& [m, n] : {std::pair{768, 1024}, std::pair{1024, 768}, std::pair{768, 768}, std::pair{2304, 768}})
    wgrad<WD>("wgrad e5m2", shared, m, n, true);
  for (const auto& [m, n] : {std::pair{768, 1024}, std::pair{768, 768}}) wgrad<WB>("wgrad bf16", shared, m, n, true);
  product<GroupedConfig<B16, Epilogue::none>>("d24 bf16", even, 2048, 1536, true);
  product<GroupedConfig<F, Epilogue::none>>("d24 fp8->bf16", even, 2048, 1536, true);
}
