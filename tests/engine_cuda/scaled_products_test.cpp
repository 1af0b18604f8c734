// FP8 products with a scale per row or per block, against their twins. Scales vary over eight powers of two and results
// are compared after division by the size that the scales give them: a scale of the wrong row, column or block of K
// is seen wherever it is.
#include <algorithm>

#include "grouped_support.h"

namespace assay {
namespace {

using namespace test;

constexpr double scale_size = 0.01;

double random_scale(Random& random) {
  return scale_size * std::exp2(random.uniform(-4, 4));
}

struct Modes {
  const char* name;
  ScaleMode a, b;
};
const Modes recipes[] = {{"rowwise", ScaleMode::rowwise, ScaleMode::rowwise},
                         {"blockwise", ScaleMode::block_1x128, ScaleMode::block_128x128}};
const DType formats[] = {DType::fp8_e4m3, DType::fp8_e5m2};

void fill(Random& random, Fp8Array& a) {
  for (int64_t i = 0; i < a.codes.size(); ++i) a.codes.set(i, 16 * random.normal());
  for (int64_t i = 0; i < a.scales.size(); ++i) a.scales.set(i, random_scale(random));
}

Fp8Array scaled_rows(Random& random, DType format, ScaleMode mode, int64_t R, int64_t K) {
  Fp8Array a = fp8_array(format, mode, R, K);
  fill(random, a);
  return a;
}
Fp8Array scaled_weights(Random& random, ScaleMode mode, int64_t E, int64_t N, int64_t K) {
  Fp8Array w = fp8_stack(DType::fp8_e4m3, mode, E, N, K);
  fill(random, w);
  return w;
}

// What the scales make of a sum of K products of codes of size 1: [R, N].
struct Sizes {
  std::vector<double> of;
  int64_t N;
  double share;  // of the rows that are some group's

  // group_of[r] < 0: no group's row.
  Sizes(const Fp8Array& a, const Fp8Array& b, const std::vector<int64_t>& group_of, int64_t N, int64_t K)
      : of(group_of.size() * static_cast<size_t>(N), 1.0), N(N) {
    share = 1 - static_cast<double>(std::count(group_of.begin(), group_of.end(), -1)) /
                    static_cast<double>(group_of.size());
    const int64_t R = static_cast<int64_t>(group_of.size()), per_group = b.scales.size() / groups(b, N, K);
    for (int64_t r = 0; r < R; ++r) {
      const int64_t g = group_of[static_cast<size_t>(r)];
      if (g < 0) continue;
      for (int64_t n = 0; n < N; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < K; k += 128) {
          const double scale =
              a.scales.get(scale_index(a.mode, r, k, K)) * b.scales.get(g * per_group + scale_index(b.mode, n, k, K));
          sum += static_cast<double>(std::min<int64_t>(128, K - k)) * scale * scale;
        }
        of[static_cast<size_t>(r * N + n)] = std::sqrt(sum);
      }
    }
  }
  static int64_t groups(const Fp8Array& b, int64_t N, int64_t K) { return b.codes.size() / (N * K); }

  Array divide(const Array& x, int power) const {
    Array to(DType::f64, {x.size() / N, N});
    for (int64_t i = 0; i < x.size(); ++i) {
      const double size = of[static_cast<size_t>(i)];
      to.set(i, x.get(i) / (power == 2 ? size * size : size));
    }
    return to;
  }
  // Of a sum over the columns.
  Array divide_rows(const Array& x) const {
    Array to(DType::f64, {x.size()});
    for (int64_t r = 0; r < x.size(); ++r) {
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += of[static_cast<size_t>(r * N + n)] * of[static_cast<size_t>(r * N + n)];
      to.set(r, x.get(r) / std::sqrt(sum));
    }
    return to;
  }
};

// growth: see expect_fp8_near.
void expect_sized_near(const std::string& what, const Sizes& sizes, const Array& got, const Array& want, int power = 1,
                       double growth = 1) {
  const Array g = sizes.divide(got, power), w = sizes.divide(want, power);
  expect_near(what, g, w, growth * std::ldexp(1.001, -7), growth * fp8_noise * rms(w) / std::sqrt(sizes.share));
}

TEST(CudaScaledProducts, DenseProductsFollowTheirTwin) {
  ASSAY_NEEDS_GPU();
  Random random(180);
  struct Shape {
    int64_t M, N, K;
  };
  std::vector<Shape> shapes = {{1, 16, 16},
                               {129, 128, 80},
                               {300, 384, 1536},
                               {130, 2064, 144},  // more columns than rows: the rows run first
                               {513, 144, 784}};
  for (int i = 0; i < 3; ++i)
    shapes.push_back({random.integer(1, 400), 16 * random.integer(1, 40), 16 * random.integer(1, 60)});
  for (const auto& [M, N, K] : shapes) {
    for (const Modes& recipe : recipes) {
      for (DType format : formats) {
        const Fp8Pair a(scaled_rows(random, format, recipe.a, M, K)),
            b(scaled_rows(random, DType::fp8_e4m3, recipe.b, N, K));
        const Sizes sizes({a.codes.host, a.scales.host, a.mode}, {b.codes.host, b.scales.host, b.mode},
                          std::vector<int64_t>(static_cast<size_t>(M), 0), N, K);
        Array rest(DType::bf16, {M, N});
        for (int64_t i = 0; i < rest.size(); ++i) rest.set(i, 256 * random.normal() * sizes.of[static_cast<size_t>(i)]);
        const Pair residual(rest);
        const std::string what = std::string(recipe.name) + " " + to_string(format) + " " + std::to_string(M) + " x " +
                                 std::to_string(N) + " x " + std::to_string(K);
        for (int kind = 0; kind < 3; ++kind) {  // without residual, with one, with `out` itself
          const Pair out(kind == 2 ? rest : poisoned(DType::bf16, {M, N}));
          GemmFp8Args host{.a = a.host(), .b = b.host(), .out = out.host};
          GemmFp8Args device{.a = a.device(), .b = b.device(), .out = out.device};
          if (kind == 1) host.residual = residual.host, device.residual = residual.device;
          if (kind == 2) host.residual = out.host, device.residual = out.device;
          cuda::gemm_fp8(nullptr, device, workspace());
          cpu::gemm_fp8(host);
          expect_sized_near(what + " kind " + std::to_string(kind), sizes, out.device.back(), out.host);
        }
      }
    }
  }
}

struct Case {
  GroupedEpilogue epilogue;
  DType format;
};
const Case cases[] = {{GroupedEpilogue::none, DType::fp8_e4m3},
                      {GroupedEpilogue::none, DType::fp8_e5m2},
                      {GroupedEpilogue::relu2, DType::fp8_e4m3},
                      {GroupedEpilogue::relu2_grad, DType::fp8_e4m3},
                      {GroupedEpilogue::relu2_grad, DType::fp8_e5m2}};

std::vector<int64_t> groups_of(const Layout& l) {
  std::vector<int64_t> group_of(static_cast<size_t>(l.R), -1);
  for (int64_t e = 0; e < l.E(); ++e)
    for (int64_t r = 0; r < l.count(e); ++r)
      group_of[static_cast<size_t>(static_cast<int64_t>(l.start.host.get(e)) + r)] = e;
  return group_of;
}

// Codes of padding rows are zeros, as permute leaves them; their scales are NaNs, which must not leave those rows.
Fp8Array scaled_rows(Random& random, const Layout& l, DType format, ScaleMode mode, int64_t K) {
  Fp8Array x = scaled_rows(random, format, mode, l.R, K);
  x.codes = used_rows(l, x.codes);
  const int64_t per_row = x.scales.size() / l.R;
  for (int64_t i = 0; i < x.scales.size(); ++i)
    if (!l.used(i / per_row)) x.scales.set(i, std::nan(""));
  return x;
}

void check_grouped(Random& random, const Layout& l, const Modes& recipe, const Case& c, int64_t N, int64_t K) {
  const bool grad = c.epilogue == GroupedEpilogue::relu2_grad;
  const Fp8Pair x(scaled_rows(random, l, c.format, recipe.a, K)), w(scaled_weights(random, recipe.b, l.E(), N, K));
  Array gates(DType::f32, {l.R});
  for (int64_t r = 0; r < l.R; ++r) gates.set(r, l.used(r) && r != 3 ? random.uniform(0.1, 1) : 0);
  const Pair hidden(random_hidden(random, l, DType::bf16, N)), gate(gates), gate_grad(poisoned(DType::f32, {l.R})),
      out(poisoned(DType::bf16, {l.R, N}));
  GroupedGemmArgs host{.groups = l.host(), .x8 = x.host(), .w8 = w.host(), .out = out.host, .epilogue = c.epilogue};
  GroupedGemmArgs device{
      .groups = l.device(), .x8 = x.device(), .w8 = w.device(), .out = out.device, .epilogue = c.epilogue};
  if (grad) {
    host.hidden = hidden.host, host.gate = gate.host, host.gate_grad = gate_grad.host;
    device.hidden = hidden.device, device.gate = gate.device, device.gate_grad = gate_grad.device;
  }
  cuda::grouped_gemm(nullptr, device, workspace());
  cpu::grouped_gemm(host);
  const Sizes sizes({x.codes.host, x.scales.host, x.mode}, {w.codes.host, w.scales.host, w.mode}, groups_of(l), N, K);
  const std::string what = std::string(recipe.name) + " " + to_string(c.format) + " epilogue " +
                           std::to_string(static_cast<int>(c.epilogue)) + ", " + l.describe() + ", n " +
                           std::to_string(N) + ", k " + std::to_string(K);
  const bool plain = c.epilogue == GroupedEpilogue::none;
  expect_sized_near(what, sizes, used_rows(l, out.device.back()), used_rows(l, out.host),
                    c.epilogue == GroupedEpilogue::relu2 ? 2 : 1, plain ? 1 : 3);
  if (!grad) return;
  const Array got = sizes.divide_rows(used_rows(l, gate_grad.device.back())),
              want = sizes.divide_rows(used_rows(l, gate_grad.host));
  expect_near(what + " gate_grad", got, want, 1e-2, 2 * fp8_noise * rms(want) / std::sqrt(sizes.share));
}

TEST(CudaScaledProducts, GroupedProductsFollowTheirTwin) {
  ASSAY_NEEDS_GPU();
  Random random(181);
  for (const auto& counts : count_sets()) {
    const Layout l(counts);
    // n, k: whole tiles and blocks; half a tile; parts of blocks.
    std::vector<std::array<int64_t, 2>> shapes = {{256, 128}, {80, 144}};
    if (l.E() == 5) shapes.insert(shapes.end(), {{384, 768}, {528, 400}});
    shapes.push_back({16 * random.integer(1, 30), 16 * random.integer(1, 40)});
    for (const auto& [n, k] : shapes)
      for (const Modes& recipe : recipes)
        for (const Case& c : cases) check_grouped(random, l, recipe, c, n, k);
  }
}

TEST(CudaScaledProducts, NoOffsetsMeanOneGroupOfAllRows) {
  ASSAY_NEEDS_GPU();
  Random random(182);
  const int64_t N = 384, K = 272;
  for (const Modes& recipe : recipes) {
    for (int64_t R : {16, 208, 512}) {
      const Fp8Pair x(scaled_rows(random, DType::fp8_e4m3, recipe.a, R, K)),
          w(scaled_weights(random, recipe.b, 1, N, K));
      const Pair out(poisoned(DType::bf16, {R, N}));
      cuda::grouped_gemm(nullptr, {.x8 = x.device(), .w8 = w.device(), .out = out.device}, workspace());
      cpu::grouped_gemm({.x8 = x.host(), .w8 = w.host(), .out = out.host});
      const Sizes sizes({x.codes.host, x.scales.host, x.mode}, {w.codes.host, w.scales.host, w.mode},
                        std::vector<int64_t>(static_cast<size_t>(R), 0), N, K);
      expect_sized_near(std::string(recipe.name) + " " + std::to_string(R) + " rows", sizes, out.device.back(),
                        out.host);
    }
  }
}

TEST(CudaScaledProducts, GiveTheSameBitsEveryTime) {
  ASSAY_NEEDS_GPU();
  Random random(183);
  for (const Modes& recipe : recipes) {
    const Fp8Mirror a(scaled_rows(random, DType::fp8_e5m2, recipe.a, 2048, 512)),
        b(scaled_rows(random, DType::fp8_e4m3, recipe.b, 768, 512));
    Array first;
    for (int i = 0; i < 5; ++i) {
      const Mirror out(poisoned(DType::bf16, {2048, 768}));
      cuda::gemm_fp8(nullptr, {.a = a, .b = b, .out = out}, workspace());
      if (i == 0) first = out.back();
      expect_same(recipe.name, out.back(), first);
    }
  }
}

// The path of the experts: rows and weights in both orientations quantised on the device, rows moved to their experts
// with their scales, the product there; the same by the twins.
TEST(CudaScaledProducts, ScalesFollowTheirRowsFromQuantisationToProduct) {
  ASSAY_NEEDS_GPU();
  Random random(184);
  const int64_t tokens = 150, d = 272, h = 400;
  const Layout l({0, 1, 127, 22});
  Array token_of(DType::i32, {l.R}), slot(DType::i32, {tokens, 1});
  token_of.fill(-1);
  int64_t next = 0;
  for (int64_t r = 0; r < l.R; ++r)
    if (l.used(r))
      slot.set(next * 7 % tokens, static_cast<double>(r)), token_of.set(r, static_cast<double>(next++ * 7 % tokens));
  ASSERT_EQ(next, tokens);
  Array values = random_array(random, DType::bf16, {tokens, d});
  for (int64_t i = 0; i < values.size(); ++i)
    values.set(i, values.get(i) * std::exp2(static_cast<double>(i / d % 9 - 4 + i % d / 128)));
  Array weights = random_array(random, DType::bf16, {l.E(), h, d}, 0.05);
  for (int64_t i = 0; i < weights.size(); ++i)
    weights.set(i, weights.get(i) * std::exp2(static_cast<double>(i / d % h / 64 % 5 - 2)));
  for (const Modes& recipe : recipes) {
    const Pair x(values), w(weights), rows(token_of), slots(slot), up(poisoned(DType::bf16, {l.R, h})),
        down(poisoned(DType::bf16, {l.R, d}));
    const Fp8Pair x8(poisoned(fp8_array(DType::fp8_e4m3, recipe.a, tokens, d))),
        moved(poisoned(fp8_array(DType::fp8_e4m3, recipe.a, l.R, d))),
        w8(poisoned(fp8_stack(DType::fp8_e4m3, recipe.b, l.E(), h, d))),
        w8t(poisoned(fp8_stack(DType::fp8_e4m3, recipe.b, l.E(), d, h))),
        up8(poisoned(fp8_array(DType::fp8_e5m2, recipe.a, l.R, h)));
    cuda::quantize(nullptr, {.x = x.device, .out = x8.device()}, workspace());
    cuda::quantize(nullptr, {.x = w.device, .out = w8.device(), .transposed = w8t.device()}, workspace());
    cuda::permute(nullptr, {.token_of = rows.device, .x8 = x8.device(), .out8 = moved.device(), .slot = slots.device},
                  workspace());
    cuda::grouped_gemm(nullptr, {.groups = l.device(), .x8 = moved.device(), .w8 = w8.device(), .out = up.device},
                       workspace());
    cpu::quantize({.x = x.host, .out = x8.host()});
    cpu::quantize({.x = w.host, .out = w8.host(), .transposed = w8t.host()});
    cpu::permute({.token_of = rows.host, .x8 = x8.host(), .out8 = moved.host()});
    cpu::grouped_gemm({.groups = l.host(), .x8 = moved.host(), .w8 = w8.host(), .out = up.host});
    const auto same = [&](const char* what, const Fp8Pair& q) {
      expect_same(std::string(recipe.name) + " codes of " + what, q.codes.device.back(), q.codes.host);
      expect_same(std::string(recipe.name) + " scales of " + what, q.scales.device.back(), q.scales.host);
    };
    same("x", x8), same("moved rows", moved), same("weights", w8), same("weights the other way", w8t);
    const std::vector<int64_t> group_of = groups_of(l);
    expect_sized_near(std::string(recipe.name) + " up",
                      Sizes({moved.codes.host, moved.scales.host, moved.mode}, {w8.codes.host, w8.scales.host, w8.mode},
                            group_of, h, d),
                      used_rows(l, up.device.back()), used_rows(l, up.host), 1, 1);
    // Back through the other orientation; both from the twin's rows.
    const Pair twin(used_rows(l, up.host));
    cuda::quantize(nullptr, {.x = twin.device, .out = up8.device()}, workspace());
    cpu::quantize({.x = twin.host, .out = up8.host()});
    same("the result", up8);
    cuda::grouped_gemm(nullptr, {.groups = l.device(), .x8 = up8.device(), .w8 = w8t.device(), .out = down.device},
                       workspace());
    cpu::grouped_gemm({.groups = l.host(), .x8 = up8.host(), .w8 = w8t.host(), .out = down.host});
    expect_sized_near(
        std::string(recipe.name) + " down",
        Sizes({up8.codes.host, up8.scales.host, up8.mode}, {w8t.codes.host, w8t.scales.host, w8t.mode}, group_of, d, h),
        used_rows(l, down.device.back()), used_rows(l, down.host), 1, 1);
  }
}

TEST(CudaScaledProducts, RefuseScalesThatDoNotBelongTogether) {
  ASSAY_NEEDS_GPU();
  const Mirror bf(Array(DType::bf16, {16, 16})), f32(Array(DType::f32, {16, 16}));
  const Fp8Mirror rowwise(fp8_array(DType::fp8_e4m3, ScaleMode::rowwise, 16, 16)),
      tensorwise(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 16, 16));
  const auto refusal = [&](const Quantized& a, const Quantized& b, const Tensor& out) {
    return error_of([&] { cuda::gemm_fp8(nullptr, {.a = a, .b = b, .out = out}, workspace()); });
  };
  EXPECT_NE(refusal(rowwise, tensorwise, bf).find("both rowwise, or 1x128 and 128x128; got rowwise and tensorwise"),
            std::string::npos);
  EXPECT_NE(refusal(rowwise, rowwise, f32).find("into f32 (weight gradients) take tensorwise scales, got rowwise"),
            std::string::npos);
  const Fp8Mirror w(fp8_stack(DType::fp8_e4m3, ScaleMode::rowwise, 1, 16, 16)),
      out(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 16, 16));
  EXPECT_NE(error_of([&] {
              cuda::grouped_gemm(nullptr, {.x8 = rowwise, .w8 = w, .out8 = out, .epilogue = GroupedEpilogue::relu2},
                                 workspace());
            }).find("products into codes take tensorwise scales, got rowwise"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
