// Grouped products and relu^2 against loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "ops_support.h"

namespace assay {
namespace {

using test::Array;
using test::Random;

struct Experts {
  std::vector<int32_t> start, rows;
  int64_t R = 0;
  Experts(const std::vector<int32_t>& counts, int32_t capacity = 0) {
    for (int32_t count : counts) {
      start.push_back(static_cast<int32_t>(R));
      rows.push_back(count);
      R += capacity > 0 ? capacity : count;
    }
    R += 2;  // rows of no group
  }
  Groups groups() const { return {start.data(), rows.data(), static_cast<int>(rows.size())}; }
  int64_t E() const { return static_cast<int64_t>(rows.size()); }
  // The group of a row, -1 outside all.
  int64_t group_of(int64_t r) const {
    for (size_t g = 0; g < rows.size(); ++g) {
      if (r >= start[g] && r < start[g] + rows[g]) return static_cast<int64_t>(g);
    }
    return -1;
  }
  std::string describe() const {
    std::string text = "counts";
    for (int32_t n : rows) text += " " + std::to_string(n);
    return text;
  }
};
const std::vector<std::vector<int32_t>> count_sets = {{0, 1, 127, 128, 129}, {0, 0, 60, 0}, {5, 0, 3}, {1}};

// u[r, n] in double; rows outside every group keep `fill`.
Array naive(const Experts& e, const Array& x, const Array& w, bool transpose_w, int64_t N, int64_t K, double fill) {
  Array out(DType::f64, {e.R, N});
  for (int64_t i = 0; i < e.R * N; ++i) {
    const int64_t g = e.group_of(i / N), n = i % N;
    double sum = fill;
    if (g >= 0) {
      sum = 0;
      for (int64_t k = 0; k < K; ++k)
        sum += x.get(i / N * K + k) * w.get(g * N * K + (transpose_w ? k * N + n : n * K + k));
    }
    out.set(i, sum);
  }
  return out;
}

TEST(GroupedGemm, MatchesATripleLoopAndLeavesOtherRowsAlone) {
  Random random(80);
  for (const auto& counts : count_sets) {
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      for (const bool transpose_w : {false, true}) {
        const Experts e(counts);
        const int64_t N = random.integer(1, 24), K = random.integer(1, 40);
        const Array x = random_array(random, dtype, {e.R, K});
        const Array w =
            transpose_w ? random_array(random, dtype, {e.E(), K, N}) : random_array(random, dtype, {e.E(), N, K});
        Array out(dtype, {e.R, N});
        out.fill(3);
        GroupedGemmArgs a;
        a.groups = e.groups(), a.x = x, a.w = w, a.transpose_w = transpose_w, a.out = out;
        cpu::grouped_gemm(a);
        const Array want = naive(e, x, w, transpose_w, N, K, 3);
        test::expect_rounded(e.describe() + " x " + x.t().describe() + " w " + w.t().describe(), out, want);
        a.epilogue = GroupedEpilogue::relu2;
        cpu::grouped_gemm(a);
        Array squared = want;
        for (int64_t i = 0; i < want.size(); ++i) {
          if (e.group_of(i / N) >= 0) squared.set(i, want.get(i) > 0 ? want.get(i) * want.get(i) : 0);
        }
        test::expect_rounded(e.describe() + " relu2 " + x.t().describe(), out, squared, 1, 1e-5);
      }
    }
  }
}

TEST(GroupedGemm, ReluGradEpilogueMatchesItsFormula) {
  Random random(81);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const DType stat = dtype == DType::f64 ? DType::f64 : DType::f32;
    const Experts e({0, 1, 30, 129});
    const int64_t N = 37, K = 20;
    const Array x = random_array(random, dtype, {e.R, K}), w = random_array(random, dtype, {e.E(), K, N});
    Array gate = random_array(random, stat, {e.R});
    Array hidden = random_array(random, dtype, {e.R, N}), out(dtype, {e.R, N}), gate_grad(stat, {e.R});
    for (int64_t i = 0; i < hidden.size(); ++i) hidden.set(i, std::max(0.0, hidden.get(i)));
    gate.set(5, 0);
    out.fill(3), gate_grad.fill(3);
    Array u = naive(e, x, w, true, N, K, 0), want = u, want_gate(DType::f64, {e.R});
    for (int64_t i = 0; i < u.size(); ++i) {
      const int64_t r = i / N;
      const bool inside = e.group_of(r) >= 0;
      want.set(i, inside ? u.get(i) * 2 * std::sqrt(hidden.get(i)) : 3);
      const double share = gate.get(r) != 0 ? u.get(i) * hidden.get(i) / gate.get(r) : 0;
      want_gate.set(r, inside ? want_gate.get(r) + share : 3);
    }
    const Array kept = hidden;
    GroupedGemmArgs a;
    a.groups = e.groups(), a.x = x, a.w = w, a.transpose_w = true, a.out = out;
    a.epilogue = GroupedEpilogue::relu2_grad, a.hidden = hidden, a.gate = gate, a.gate_grad = gate_grad;
    cpu::grouped_gemm(a);
    test::expect_rounded(std::string(to_string(dtype)) + " out", out, want);
    test::expect_rounded(std::string(to_string(dtype)) + " gate_grad", gate_grad, want_gate);
    EXPECT_TRUE(hidden.same_bytes(kept));
    Array ungated(dtype, {e.R, N});
    ungated.fill(3);
    a.out = ungated, a.gate = {}, a.gate_grad = {};
    cpu::grouped_gemm(a);
    EXPECT_TRUE(ungated.same_bytes(out));
  }
}

// loss = sum_r gate[r] * <h_r W2^T, c_r>, h = relu(x W1^T)^2: the expert as the model runs it, forward and backward.
TEST(GroupedGemm, ExpertGradientMatchesCentralDifferences) {
  Random random(82);
  const Experts e({3, 0, 5, 1});
  const int64_t d = 7, width = 9, E = e.E(), R = e.R;
  Array x = random_array(random, DType::f64, {R, d}), w1 = random_array(random, DType::f64, {E, width, d}),
        w2 = random_array(random, DType::f64, {E, d, width});
  Array gate = random_array(random, DType::f64, {R}), h(DType::f64, {R, width}), y(DType::f64, {R, d});
  const Array c = random_array(random, DType::f64, {R, d});
  GroupedGemmArgs up, down;
  up.groups = down.groups = e.groups();
  up.x = x, up.w = w1, up.out = h, up.epilogue = GroupedEpilogue::relu2;
  down.x = h, down.w = w2, down.out = y;
  const auto loss = [&] {
    cpu::grouped_gemm(up);
    cpu::grouped_gemm(down);
    double sum = 0;
    for (int64_t i = 0; i < R * d; ++i) sum += gate.get(i / d) * y.get(i) * c.get(i);
    return sum;
  };
  loss();
  Array dz(DType::f64, {R, width}), dgate(DType::f64, {R}), dx(DType::f64, {R, d}), dw1(DType::f64, {E, width, d}),
      dw2(DType::f64, {E, d, width});
  dw1.fill(1), dw2.fill(1);
  Array dy = c;  // carries the gate, as permute leaves it
  for (int64_t i = 0; i < R * d; ++i) dy.set(i, gate.get(i / d) * c.get(i));
  GroupedGemmArgs back;
  back.groups = e.groups(), back.x = dy, back.w = w2, back.transpose_w = true, back.out = dz;
  back.epilogue = GroupedEpilogue::relu2_grad, back.hidden = h, back.gate = gate, back.gate_grad = dgate;
  cpu::grouped_gemm(back);
  cpu::grouped_wgrad({e.groups(), dy, h, {}, {}, dw2});
  cpu::grouped_wgrad({e.groups(), dz, x, {}, {}, dw1});
  GroupedGemmArgs to_x;
  to_x.groups = e.groups(), to_x.x = dz, to_x.w = w1, to_x.transpose_w = true, to_x.out = dx;
  cpu::grouped_gemm(to_x);
  for (Array* dw : {&dw1, &dw2}) {
    for (int64_t i = 0; i < dw->size(); ++i) dw->set(i, dw->get(i) - 1);  // they accumulate
  }
  check_gradient("x", loss, x, dx, 1e-6, R * d);
  check_gradient("gate", loss, gate, dgate);
  check_gradient("w1", loss, w1, dw1, 1e-6, 100);
  check_gradient("w2", loss, w2, dw2, 1e-6, 100);
}

TEST(GroupedWgrad, MatchesATripleLoopAndSkipsEmptyGroups) {
  Random random(83);
  for (const auto& counts : count_sets) {
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const Experts e(counts);
      const int64_t N = random.integer(1, 20), K = random.integer(1, 20);
      const Array dy = random_array(random, dtype, {e.R, N}), x = random_array(random, dtype, {e.R, K});
      Array dw = random_array(random, dtype == DType::f64 ? dtype : DType::f32, {e.E(), N, K}),
            want = dw.as(DType::f64);
      for (int64_t r = 0; r < e.R; ++r) {
        const int64_t g = e.group_of(r);
        for (int64_t i = 0; g >= 0 && i < N * K; ++i) {
          want.set(g * N * K + i, want.get(g * N * K + i) + dy.get(r * N + i / K) * x.get(r * K + i % K));
        }
      }
      const Array before = dw;
      cpu::grouped_wgrad({e.groups(), dy, x, {}, {}, dw});
      test::expect_rounded(e.describe() + " dy " + dy.t().describe() + " x " + x.t().describe(), dw, want);
      for (int64_t i = 0; i < dw.size(); ++i) {
        if (e.rows[static_cast<size_t>(i / (N * K))] == 0) {
          ASSERT_EQ(dw.get(i), before.get(i)) << "empty group";
        }
      }
      Array added(dw.t().dtype, {e.E(), N, K}), replaced = before;
      cpu::grouped_wgrad({e.groups(), dy, x, {}, {}, added});
      cpu::grouped_wgrad({e.groups(), dy, x, {}, {}, replaced, false});
      for (int64_t i = 0; i < added.size(); ++i)
        ASSERT_EQ(replaced.get(i), added.get(i)) << "put in the place of what was there";
    }
  }
}

TEST(GroupedGemmFp8, EveryScaleModeMatchesDequantiseThenMultiply) {
  Random random(84);
  const std::pair<ScaleMode, ScaleMode> modes[] = {{ScaleMode::tensorwise, ScaleMode::tensorwise},
                                                   {ScaleMode::rowwise, ScaleMode::rowwise},
                                                   {ScaleMode::block_1x128, ScaleMode::block_128x128}};
  for (const auto& [x_mode, w_mode] : modes) {
    const Experts e({0, 1, 40, 129});
    const int64_t N = 140, K = 300;
    const test::Fp8Array x = random_fp8(random, DType::fp8_e5m2, x_mode, e.R, K);
    test::Fp8Array w = test::fp8_stack(DType::fp8_e4m3, w_mode, e.E(), N, K);
    for (int64_t i = 0; i < w.codes.size(); ++i) w.codes.set(i, 16 * random.normal());
    for (int64_t i = 0; i < w.scales.size(); ++i) w.scales.set(i, random.uniform(0.01, 0.1));
    Array out(DType::bf16, {e.R, N});
    out.fill(3);
    GroupedGemmArgs a;
    a.groups = e.groups(), a.x8 = x, a.w8 = w, a.out = out;
    cpu::grouped_gemm(a);
    test::expect_rounded(to_string(x_mode), out, naive(e, dequantize(x, e.R, K), dequantize(w, N, K), false, N, K, 3));
  }
}

Array transposed(const Array& a, int64_t rows, int64_t columns) {
  Array to(a.dtype(), {columns, rows});
  for (int64_t i = 0; i < rows * columns; ++i) to.set(i % columns * rows + i / columns, a.get(i));
  return to;
}

TEST(GroupedWgradFp8, MatchesDequantiseThenMultiply) {
  Random random(85);
  const Experts e({0, 1, 50});
  const int64_t N = 21, K = 33;
  const test::Fp8Array dy8t = random_fp8(random, DType::fp8_e5m2, ScaleMode::tensorwise, N, e.R),
                       x8t = random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, K, e.R);
  Array dw = random_array(random, DType::f32, {e.E(), N, K}), want = dw.as(DType::f64);
  GroupedWgradArgs a;
  a.groups = e.groups(), a.dy8t = dy8t, a.x8t = x8t, a.dw = dw;
  cpu::grouped_wgrad(a);
  cpu::grouped_wgrad({e.groups(),
                      transposed(dequantize(dy8t, N, e.R), N, e.R),
                      transposed(dequantize(x8t, K, e.R), K, e.R),
                      {},
                      {},
                      want});
  test::expect_rounded("dw", dw, want);
  const test::Fp8Array rowwise = random_fp8(random, DType::fp8_e4m3, ScaleMode::rowwise, K, e.R);
  a.x8t = rowwise;
  EXPECT_NE(test::error_of([&] { cpu::grouped_wgrad(a); }).find("x8t must be tensorwise, not rowwise"),
            std::string::npos);
}

// FP8 operands for the tests of FP8 outputs: x8 [R, K], w8 [E, N, K].
struct Fp8Operands {
  test::Fp8Array x, w;
  Fp8Operands(Random& random, const Experts& e, int64_t N, int64_t K)
      : x(random_fp8(random, DType::fp8_e5m2, ScaleMode::tensorwise, e.R, K)),
        w(test::fp8_stack(DType::fp8_e4m3, ScaleMode::tensorwise, e.E(), N, K)) {
    for (int64_t i = 0; i < w.codes.size(); ++i) w.codes.set(i, 16 * random.normal());
    for (int64_t i = 0; i < w.scales.size(); ++i) w.scales.set(i, random.uniform(0.001, 0.01));
  }
};

// Codes against the FP32 result of the same product, cast element by element.
TEST(GroupedGemmFp8Out, CodesAreTheResultCastWithTheSlotsScaleAndOut8tIsTheirTranspose) {
  Random random(90);
  const int64_t N = 24, K = 40;
  for (const auto& counts : count_sets) {
    const Experts e(counts);
    const Fp8Operands in(random, e, N, K);
    Array hidden = random_array(random, DType::f32, {e.R, N});
    test::Fp8Array hidden8 = random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, e.R, N);
    for (int64_t i = 0; i < hidden.size(); ++i) {
      hidden8.codes.set(i, std::fabs(hidden8.codes.get(i)));
      hidden.set(i, static_cast<float>(hidden8.codes.get(i)) * static_cast<float>(hidden8.scales.get(0)));
    }
    for (GroupedEpilogue epilogue : {GroupedEpilogue::none, GroupedEpilogue::relu2, GroupedEpilogue::relu2_grad}) {
      for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
        Array values(DType::f32, {e.R, N}), gate = random_array(random, DType::f32, {e.R}),
                                            gate_grad(DType::f32, {e.R}), gate_grad8 = gate_grad;
        GroupedGemmArgs a;
        a.groups = e.groups(), a.x8 = in.x, a.w8 = in.w, a.out = values, a.epilogue = epilogue;
        if (epilogue == GroupedEpilogue::relu2_grad) a.hidden = hidden, a.gate = gate, a.gate_grad = gate_grad;
        cpu::grouped_gemm(a);
        float top = 0;
        for (int64_t i = 0; i < e.R * N; ++i) {
          if (e.group_of(i / N) >= 0) top = std::max(top, static_cast<float>(std::fabs(values.get(i))));
        }
        const float max = format == DType::fp8_e4m3 ? e4m3_max : e5m2_max;
        for (const float given : {0.0f, 0.01f}) {
          float scale = given, amax = 0.5f;
          test::Fp8Array out = test::fp8_array(format, ScaleMode::tensorwise, e.R, N),
                         out_t = test::fp8_array(format, ScaleMode::tensorwise, N, e.R);
          out.codes.fill(3), out_t.codes.fill(3);
          GroupedGemmArgs b = a;
          b.out = {}, b.out8 = out, b.out8t = out_t, b.out8_scale = {&scale, &amax}, b.calibrate = true;
          if (epilogue == GroupedEpilogue::relu2_grad) b.hidden = {}, b.hidden8 = hidden8, b.gate_grad = gate_grad8;
          cpu::grouped_gemm(b);
          const float used = given > 0 ? given : top > 0 ? top / max : 1.0f;
          EXPECT_EQ(scale, given);  // left to scale_update
          EXPECT_EQ(amax, std::max(0.5f, top));
          EXPECT_EQ(out.scales.get(0), used);
          EXPECT_EQ(out_t.scales.get(0), used);
          Array want(format, {e.R, N});
          for (int64_t i = 0; i < want.size(); ++i) {
            want.set(i, e.group_of(i / N) < 0 ? 3 : static_cast<float>(values.get(i)) * (1.0f / used));
          }
          EXPECT_TRUE(out.codes.same_bytes(want)) << e.describe() << " to " << to_string(format);
          EXPECT_TRUE(out_t.codes.same_bytes(transposed(want, e.R, N))) << e.describe();
          EXPECT_TRUE(gate_grad8.same_bytes(gate_grad));
        }
      }
    }
  }
}

TEST(GroupedGemmFp8Out, AScaleThatIsNotThereCountsAsOneUnlessCalibrated) {
  Random random(91);
  const Experts e({4});
  const Fp8Operands in(random, e, 8, 16);
  float scale = 0, amax = 0;
  const test::Fp8Array out = test::fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, e.R, 8);
  GroupedGemmArgs a;
  a.groups = e.groups(), a.x8 = in.x, a.w8 = in.w, a.out8 = out, a.out8_scale = {&scale, &amax};
  cpu::grouped_gemm(a);
  EXPECT_EQ(out.scales.get(0), 1);
  EXPECT_GT(amax, 0);
}

TEST(GroupedGemm, NoOffsetsMeanOneGroupOfAllRows) {
  Random random(92);
  const int64_t R = 37, N = 12, K = 20;
  const int32_t start = 0, rows = R;
  const Array x = random_array(random, DType::bf16, {R, K}), w = random_array(random, DType::bf16, {1, N, K});
  Array out(DType::bf16, {R, N}), want = out, dw(DType::f32, {1, N, K}), want_dw = dw;
  GroupedGemmArgs a;
  a.x = x, a.w = w, a.out = out;
  cpu::grouped_gemm(a);
  a.groups = {&start, &rows, 1}, a.out = want;
  cpu::grouped_gemm(a);
  EXPECT_TRUE(out.same_bytes(want));
  EXPECT_GT(test::rms(out), 0);
  cpu::grouped_wgrad({{}, out, x, {}, {}, dw});
  cpu::grouped_wgrad({a.groups, out, x, {}, {}, want_dw});
  EXPECT_TRUE(dw.same_bytes(want_dw));
  EXPECT_GT(test::rms(dw), 0);
  const Array two(DType::bf16, {2, N, K});
  a.groups = {}, a.w = two;
  EXPECT_NE(test::error_of([&] { cpu::grouped_gemm(a); }).find("one group of all rows, but 2 experts"),
            std::string::npos);
}

// The same tokens in the dynamic layout and in the padded one: same rows, same weight gradients.
TEST(GroupedGemm, StaticCapacityGivesWhatTheDynamicLayoutGives) {
  Random random(86);
  const int32_t capacity = 16;
  const Experts dynamic({3, 0, 16, 7});
  Experts fixed({3, 0, 16, 7}, capacity);
  for (int32_t& rows : fixed.rows) rows = capacity;  // padding rows are zeros and take part
  const int64_t N = 24, K = 40;
  const Array w = random_array(random, DType::bf16, {4, N, K}), x = random_array(random, DType::bf16, {dynamic.R, K});
  Array padded(DType::bf16, {fixed.R, K}), y(DType::bf16, {dynamic.R, N}), y_padded(DType::bf16, {fixed.R, N});
  Array dw(DType::f32, {4, N, K}), dw_padded = dw;
  const auto padded_row = [&](int64_t r) {
    return fixed.start[static_cast<size_t>(dynamic.group_of(r))] + r -
           dynamic.start[static_cast<size_t>(dynamic.group_of(r))];
  };
  for (int64_t i = 0; i < 26 * K; ++i) padded.set(padded_row(i / K) * K + i % K, x.get(i));
  for (const auto& [e, in, out] :
       {std::tuple{&dynamic, &x, &y},
        std::tuple{const_cast<const Experts*>(&fixed), const_cast<const Array*>(&padded), &y_padded}}) {
    GroupedGemmArgs a;
    a.groups = e->groups(), a.x = *in, a.w = w, a.out = *out;
    cpu::grouped_gemm(a);
  }
  for (int64_t i = 0; i < 26 * N; ++i) {
    ASSERT_NEAR(y.get(i), y_padded.get(padded_row(i / N) * N + i % N), 1e-6 + 0x1p-8 * std::fabs(y.get(i)))
        << "row " << i / N;
  }
  cpu::grouped_wgrad({dynamic.groups(), y, x, {}, {}, dw});
  cpu::grouped_wgrad({fixed.groups(), y_padded, padded, {}, {}, dw_padded});
  test::expect_near("dw", dw, dw_padded, 1e-5, 2e-3 * test::rms(dw));
}

TEST(GroupedGemm, RefusesGroupsOutsideTheBuffer) {
  Array x(DType::f32, {4, 3}), w(DType::f32, {1, 2, 3}), out(DType::f32, {4, 2});
  const int32_t start = 2, rows = 3;
  GroupedGemmArgs a;
  a.groups = {&start, &rows, 1}, a.x = x, a.w = w, a.out = out;
  EXPECT_NE(test::error_of([&] { cpu::grouped_gemm(a); }).find("group 0 is rows [2, +3) of a buffer of 4"),
            std::string::npos);
}

TEST(Relu2, SquaresThePositivePartAndKeepsNan) {
  Random random(87);
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Array z = random_array(random, dtype, {7, 11}), want = z;
    for (int64_t i = 0; i < z.size(); ++i) want.set(i, z.get(i) > 0 ? z.get(i) * z.get(i) : 0);
    cpu::relu2({z, z});
    for (int64_t i = 0; i < z.size(); ++i) EXPECT_EQ(z.get(i), want.get(i)) << to_string(dtype);
    z.set(0, std::nan(""));
    cpu::relu2({z, z});
    EXPECT_TRUE(std::isnan(z.get(0)));
  }
}

TEST(Relu2Grad, MatchesCentralDifferencesWithAndWithoutGate) {
  Random random(88);
  for (const bool gated : {false, true}) {
    const int64_t R = 6, width = 13;
    Array z = random_array(random, DType::f64, {R, width}), gate = random_array(random, DType::f64, {R}),
          h(DType::f64, {R, width});
    const Array c = random_array(random, DType::f64, {R, width});
    const auto loss = [&] {
      cpu::relu2({z, h});
      double sum = 0;
      for (int64_t i = 0; i < R * width; ++i) sum += (gated ? gate.get(i / width) : 1) * h.get(i) * c.get(i);
      return sum;
    };
    loss();
    Array dz(DType::f64, {R, width}), dgate(DType::f64, {R}), kept = h, du = c;
    for (int64_t i = 0; gated && i < du.size(); ++i) du.set(i, gate.get(i / width) * c.get(i));
    Relu2GradArgs a;
    a.du = du, a.h = h, a.dz = dz;
    if (gated) a.gate = gate, a.gate_grad = dgate;
    cpu::relu2_grad(a);
    EXPECT_TRUE(h.same_bytes(kept));
    check_gradient("z", loss, z, dz, 1e-6, R * width);
    if (gated) check_gradient("gate", loss, gate, dgate);
  }
}

TEST(Relu2Grad, AgreesWithTheGroupedEpilogueInLowerPrecision) {
  Random random(89);
  const Experts e({9});
  const int64_t N = 30;
  Array u = random_array(random, DType::bf16, {e.R, N}), identity(DType::bf16, {1, N, N}),
        gate = random_array(random, DType::f32, {e.R});
  for (int64_t i = 0; i < N; ++i) identity.set(i * N + i, 1);
  Array hidden = random_array(random, DType::bf16, {e.R, N});
  for (int64_t i = 0; i < hidden.size(); ++i) hidden.set(i, std::fabs(hidden.get(i)));
  Array hidden2 = hidden, dz(DType::bf16, {e.R, N}), dz2 = dz, dgate(DType::f32, {e.R}), dgate2 = dgate;
  GroupedGemmArgs a;
  a.groups = e.groups(), a.x = u, a.w = identity, a.out = dz;
  a.epilogue = GroupedEpilogue::relu2_grad, a.hidden = hidden, a.gate = gate, a.gate_grad = dgate;
  cpu::grouped_gemm(a);
  cpu::relu2_grad(
      {u.t().slice(0, 9), hidden2.t().slice(0, 9), dz2.t().slice(0, 9), gate.t().slice(0, 9), dgate2.t().slice(0, 9)});
  EXPECT_TRUE(dz.same_bytes(dz2));
  EXPECT_TRUE(hidden.same_bytes(hidden2));
  EXPECT_TRUE(dgate.same_bytes(dgate2));
  EXPECT_GT(test::rms(dz), 0);
}

}  // namespace
}  // namespace assay
