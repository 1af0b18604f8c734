// Products of the routed experts against their twins.
#include "grouped_support.h"

namespace assay {
namespace {

using namespace test;

struct Widths {
  int64_t d, h;
};
// The widest only with the most awkward counts: the twin takes its time.
std::vector<Widths> widths_for(const Layout& l) {
  std::vector<Widths> widths = {{128, 128}, {768, 384}};
  if (l.E() == 5) widths.push_back({1536, 1024});
  return widths;
}
const GroupedEpilogue epilogues[] = {GroupedEpilogue::none, GroupedEpilogue::relu2, GroupedEpilogue::relu2_grad};

std::string name(const Layout& l, int64_t n, int64_t k, GroupedEpilogue e) {
  return l.describe() + ", n " + std::to_string(n) + ", k " + std::to_string(k) + ", epilogue " +
         std::to_string(static_cast<int>(e));
}

// Gates of the rows: 0 in padding and for one row.
Pair random_gate(Random& random, const Layout& l) {
  Array gate(DType::f32, {l.R});
  for (int64_t r = 0; r < l.R; ++r) gate.set(r, l.used(r) && r != 3 ? random.uniform(0.1, 1) : 0);
  return Pair(gate);
}

TEST(CudaGroupedGemm, Bf16FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(100);
  for (const auto& counts : count_sets()) {
    const Layout l(counts);
    for (const auto& [d, h] : widths_for(l)) {
      for (GroupedEpilogue epilogue : epilogues) {
        for (const bool variant : {false, true}) {  // none: w transposed; relu2_grad: without gate
          if (epilogue == GroupedEpilogue::relu2 && variant) continue;
          const bool grad = epilogue == GroupedEpilogue::relu2_grad;
          const bool transpose_w = grad || variant;
          const int64_t k = d, n = h;
          const Pair x(random_rows(random, l, DType::bf16, k)),
              w(transpose_w ? random_array(random, DType::bf16, {l.E(), k, n}, 0.05)
                            : random_array(random, DType::bf16, {l.E(), n, k}, 0.05)),
              hidden(random_hidden(random, l, DType::bf16, n)), gate = random_gate(random, l),
                                                                out(poisoned(DType::bf16, {l.R, n})),
                                                                gate_grad(poisoned(DType::f32, {l.R}));
          GroupedGemmArgs host{.groups = l.host(),
                               .x = x.host,
                               .w = w.host,
                               .transpose_w = transpose_w,
                               .out = out.host,
                               .epilogue = epilogue};
          GroupedGemmArgs device{.groups = l.device(),
                                 .x = x.device,
                                 .w = w.device,
                                 .transpose_w = transpose_w,
                                 .out = out.device,
                                 .epilogue = epilogue};
          if (grad) host.hidden = hidden.host, device.hidden = hidden.device;
          if (grad && !variant) {
            host.gate = gate.host, host.gate_grad = gate_grad.host;
            device.gate = gate.device, device.gate_grad = gate_grad.device;
          }
          cuda::grouped_gemm(nullptr, device, workspace());
          cpu::grouped_gemm(host);
          const std::string what = name(l, n, k, epilogue);
          const Array got = out.device.back();
          // Near zero what counts is the noise of an FP32 sum, far below one BF16 step of the larger elements.
          expect_close(what, used_rows(l, got), used_rows(l, out.host), 1e-4);
          expect_same(what + " hidden", hidden.device.back(), hidden.host);
          if (host.gate)
            expect_close(what + " gate_grad", used_rows(l, gate_grad.device.back()), used_rows(l, gate_grad.host),
                         1e-4);
        }
      }
    }
  }
}

TEST(CudaGroupedGemm, Fp8IntoBf16FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(101);
  for (const auto& counts : count_sets()) {
    const Layout l(counts);
    for (const auto& [k, n] : widths_for(l)) {
      for (GroupedEpilogue epilogue : epilogues) {
        for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
          if (epilogue == GroupedEpilogue::relu2 && format == DType::fp8_e5m2) continue;
          const Fp8Pair x(fp8_of(random_rows(random, l, format, k, 32), 0.02)),
              w(random_fp8_weights(random, l.E(), n, k));
          const Pair hidden(random_hidden(random, l, DType::bf16, n)), out(poisoned(DType::bf16, {l.R, n}));
          GroupedGemmArgs host{
              .groups = l.host(), .x8 = x.host(), .w8 = w.host(), .out = out.host, .epilogue = epilogue};
          GroupedGemmArgs device{
              .groups = l.device(), .x8 = x.device(), .w8 = w.device(), .out = out.device, .epilogue = epilogue};
          if (epilogue == GroupedEpilogue::relu2_grad) host.hidden = hidden.host, device.hidden = hidden.device;
          cuda::grouped_gemm(nullptr, device, workspace());
          cpu::grouped_gemm(host);
          expect_fp8_near(name(l, n, k, epilogue), used_rows(l, out.device.back()), used_rows(l, out.host),
                          epilogue == GroupedEpilogue::none ? 1 : 3);
        }
      }
    }
  }
}

struct CodesCase {
  GroupedEpilogue epilogue;
  DType format;
};
const CodesCase codes_cases[] = {{GroupedEpilogue::relu2, DType::fp8_e4m3},
                                 {GroupedEpilogue::relu2_grad, DType::fp8_e5m2},
                                 {GroupedEpilogue::relu2_grad, DType::fp8_e4m3}};

// Operands of a product into codes, its outputs and its scale slot.
struct CodesRun {
  Fp8Pair x, w, hidden, out, out_t;
  Pair gate, gate_grad, slot, amax;
  GroupedGemmArgs host, device;

  CodesRun(Random& random, const Layout& l, int64_t n, int64_t k, const CodesCase& c, float scale, float top)
      : x(fp8_of(random_rows(random, l, c.format, k, 32), 0.02)),
        w(random_fp8_weights(random, l.E(), n, k)),
        hidden(fp8_of(random_hidden(random, l, DType::fp8_e4m3, n, 20), 0.04)),
        out(poisoned(fp8_array(c.format, ScaleMode::tensorwise, l.R, n))),
        out_t(poisoned(fp8_array(c.format, ScaleMode::tensorwise, n, l.R))),
        gate(random_gate(random, l)),
        gate_grad(poisoned(DType::f32, {l.R})) {
    Array s(DType::f32, {1}), m(DType::f32, {1});
    s.set(0, scale), m.set(0, top);
    slot = Pair(s), amax = Pair(m);
    host = {.groups = l.host(),
            .x8 = x.host(),
            .w8 = w.host(),
            .out8 = out.host(),
            .out8t = out_t.host(),
            .out8_scale = {slot.host.t().as<float>(), amax.host.t().as<float>()},
            .epilogue = c.epilogue};
    device = {.groups = l.device(),
              .x8 = x.device(),
              .w8 = w.device(),
              .out8 = out.device(),
              .out8t = out_t.device(),
              .out8_scale = {slot.device.t().as<float>(), amax.device.t().as<float>()},
              .epilogue = c.epilogue};
    if (c.epilogue != GroupedEpilogue::relu2_grad) return;
    host.hidden8 = hidden.host(), host.gate = gate.host, host.gate_grad = gate_grad.host;
    device.hidden8 = hidden.device(), device.gate = gate.device, device.gate_grad = gate_grad.device;
  }
};

// A scale that uses the format's range well for the values of these tests.
float good_scale(const CodesCase& c, int64_t k) {
  return static_cast<float>(k) * (c.format == DType::fp8_e4m3 ? 2e-3f : 2e-5f) / 64;
}

TEST(CudaGroupedGemm, CodesFollowTheTwinsAndTheTransposeIsTheirCopy) {
  ASSAY_NEEDS_GPU();
  Random random(102);
  for (const auto& counts : count_sets()) {
    const Layout l(counts);
    for (const auto& [k, n] : widths_for(l)) {
      for (const CodesCase& c : codes_cases) {
        const float scale = good_scale(c, k);
        CodesRun run(random, l, n, k, c, scale, 1e-3f);
        cuda::grouped_gemm(nullptr, run.device, workspace());
        cpu::grouped_gemm(run.host);
        const std::string what = name(l, n, k, c.epilogue) + " " + to_string(c.format);
        const Array got = run.out.codes.device.back(), got_t = run.out_t.codes.device.back();
        const Array want = used_rows(l, run.out.codes.host);
        expect_codes_near(what, used_rows(l, got), want, 0.01);
        expect_same(what + " transposed", used_rows(l, got_t, true), transposed(used_rows(l, got), l.R, n));
        // Padding up to the next multiple of 128 is zero: weight gradients read it.
        for (int64_t r = 0; r < l.R - 128; ++r) {
          for (int64_t j = 0; !l.used(r) && j < n; ++j) {
            ASSERT_EQ(got.get(r * n + j), 0) << what << " row " << r;
            ASSERT_EQ(got_t.get(j * l.R + r), 0) << what << " row " << r;
          }
        }
        EXPECT_EQ(run.out.scales.device.back().get(0), scale) << what;
        EXPECT_EQ(run.out_t.scales.device.back().get(0), scale) << what;
        EXPECT_EQ(run.slot.device.back().get(0), scale) << what;
        expect_near(what + " amax", run.amax.device.back(), run.amax.host, 1e-3, 0);
        if (run.host.gate)
          expect_near(what + " gate_grad", used_rows(l, run.gate_grad.device.back()), used_rows(l, run.gate_grad.host),
                      1e-2, 2 * fp8_noise * rms(used_rows(l, run.gate_grad.host)));
        GroupedGemmArgs plain = run.device;  // without the copy: another kernel, the same codes
        const Fp8Pair alone(poisoned(fp8_array(c.format, ScaleMode::tensorwise, l.R, n)));
        plain.out8 = alone.device(), plain.out8t = {};
        cuda::grouped_gemm(nullptr, plain, workspace());
        expect_same(what + " alone", used_rows(l, alone.codes.device.back()), used_rows(l, got));
      }
    }
  }
}

TEST(CudaGroupedGemm, CalibratesFromItsOwnAmaxOnlyWhereTheSlotIsEmpty) {
  ASSAY_NEEDS_GPU();
  Random random(103);
  const Layout l({0, 1, 127, 130});
  for (const CodesCase& c : codes_cases) {
    CodesRun run(random, l, 384, 256, c, 0, 1e-6f);
    run.host.calibrate = run.device.calibrate = true;
    cuda::grouped_gemm(nullptr, run.device, workspace());
    cpu::grouped_gemm(run.host);
    const double amax = run.amax.device.back().get(0), scale = run.out.scales.device.back().get(0);
    const float max = c.format == DType::fp8_e4m3 ? e4m3_max : e5m2_max;
    EXPECT_EQ(scale, static_cast<float>(amax) / max) << to_string(c.format);
    EXPECT_EQ(run.out_t.scales.device.back().get(0), scale);
    EXPECT_EQ(run.slot.device.back().get(0), 0);  // left to scale_update
    expect_near("amax", run.amax.device.back(), run.amax.host, 1e-3, 0);
    expect_near("scale", run.out.scales.device.back(), run.out.scales.host, 1e-3, 0);
    // With that scale in the slot, calibrating or not, the codes are the same.
    const Array codes = run.out.codes.device.back();
    Array filled(DType::f32, {1});
    filled.set(0, scale);
    const Mirror slot(filled);
    for (const bool calibrate : {true, false}) {
      const Fp8Pair again(poisoned(fp8_array(c.format, ScaleMode::tensorwise, l.R, 384)));
      GroupedGemmArgs args = run.device;
      args.out8 = again.device(), args.out8_scale.scale = slot.t().as<float>(), args.calibrate = calibrate;
      cuda::grouped_gemm(nullptr, args, workspace());
      expect_same("again", used_rows(l, again.codes.device.back()), used_rows(l, codes));
    }
    GroupedGemmArgs uncalibrated = run.device;
    uncalibrated.calibrate = false;
    cuda::grouped_gemm(nullptr, uncalibrated, workspace());
    EXPECT_EQ(run.out.scales.device.back().get(0), 1);
  }
}

TEST(CudaGroupedGemm, ZerosCalibrateToOneAndNansReachTheAmax) {
  ASSAY_NEEDS_GPU();
  Random random(104);
  const Layout l({100});
  const CodesCase c{GroupedEpilogue::relu2, DType::fp8_e4m3};
  for (const bool nan : {false, true}) {
    CodesRun run(random, l, 128, 128, c, 0, 0);
    Array codes(DType::fp8_e4m3, {l.R, 128});
    if (nan) codes.set(5, std::nan(""));
    const Fp8Mirror x(fp8_of(codes, 1));
    run.device.x8 = x, run.device.calibrate = true;
    cuda::grouped_gemm(nullptr, run.device, workspace());
    const double amax = run.amax.device.back().get(0);
    EXPECT_TRUE(nan ? std::isnan(amax) : amax == 0) << amax;
    if (!nan) {
      EXPECT_EQ(run.out.scales.device.back().get(0), 1);
    }
  }
}

TEST(CudaGroupedGemm, NoOffsetsMeanOneGroupOfAllRows) {
  ASSAY_NEEDS_GPU();
  Random random(105);
  const int64_t k = 256, n = 384;
  for (int64_t R : {16, 208, 512}) {
    const Pair x(random_array(random, DType::bf16, {R, k})), w(random_array(random, DType::bf16, {1, n, k}, 0.05)),
        out(poisoned(DType::bf16, {R, n}));
    cuda::grouped_gemm(nullptr, {.x = x.device, .w = w.device, .out = out.device}, workspace());
    cpu::grouped_gemm({.x = x.host, .w = w.host, .out = out.host});
    expect_close(std::to_string(R) + " rows", out.device.back(), out.host, 2e-5);

    const Fp8Pair x8(random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, R, k)),
        w8(random_fp8_weights(random, 1, n, k)),
        out8(poisoned(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, R, n))),
        out8t(poisoned(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, n, R)));
    Array slot(DType::f32, {1});
    slot.set(0, 0.01);
    const Pair scale(slot), amax(Array(DType::f32, {1}));
    cuda::grouped_gemm(nullptr,
                       {.x8 = x8.device(),
                        .w8 = w8.device(),
                        .out8 = out8.device(),
                        .out8t = out8t.device(),
                        .out8_scale = {scale.device.t().as<float>(), amax.device.t().as<float>()},
                        .epilogue = GroupedEpilogue::relu2},
                       workspace());
    cpu::grouped_gemm({.x8 = x8.host(),
                       .w8 = w8.host(),
                       .out8 = out8.host(),
                       .out8t = out8t.host(),
                       .out8_scale = {scale.host.t().as<float>(), amax.host.t().as<float>()},
                       .epilogue = GroupedEpilogue::relu2});
    const Array codes = out8.codes.device.back();
    expect_codes_near(std::to_string(R) + " rows to codes", codes, out8.codes.host, 0.01);
    expect_same("transposed", out8t.codes.device.back(), transposed(codes, R, n));
  }
}

TEST(CudaGroupedWgrad, FollowsItsTwinAndSkipsEmptyGroups) {
  ASSAY_NEEDS_GPU();
  Random random(106);
  for (const auto& counts : count_sets()) {
    const Layout l(counts);
    for (const auto& [d, h] : widths_for(l)) {
      const std::string what = name(l, h, d, GroupedEpilogue::none);
      const Array before = random_array(random, DType::f32, {l.E(), h, d});
      const Pair dy(random_rows(random, l, DType::bf16, h)), x(random_rows(random, l, DType::bf16, d)), dw(before);
      cuda::grouped_wgrad(nullptr, {.groups = l.device(), .dy = dy.device, .x = x.device, .dw = dw.device},
                          workspace());
      cpu::grouped_wgrad({.groups = l.host(), .dy = dy.host, .x = x.host, .dw = dw.host});
      expect_near(what, dw.device.back(), dw.host, 1e-5, 1e-5 * rms(dw.host));
      const Pair replaced(before);
      cuda::grouped_wgrad(
          nullptr, {.groups = l.device(), .dy = dy.device, .x = x.device, .dw = replaced.device, .accumulate = false},
          workspace());
      cpu::grouped_wgrad({.groups = l.host(), .dy = dy.host, .x = x.host, .dw = replaced.host, .accumulate = false});
      expect_near(what + " replaced", replaced.device.back(), replaced.host, 1e-5, 1e-5 * rms(replaced.host));
      for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
        const Fp8Pair dy8t(fp8_of(transposed(random_rows(random, l, format, h, 16), l.R, h), 0.01)),
            x8t(fp8_of(transposed(random_rows(random, l, DType::fp8_e4m3, d, 16), l.R, d), 0.02));
        const Pair dw8(before);
        cuda::grouped_wgrad(
            nullptr, {.groups = l.device(), .dy8t = dy8t.device(), .x8t = x8t.device(), .dw = dw8.device}, workspace());
        cpu::grouped_wgrad({.groups = l.host(), .dy8t = dy8t.host(), .x8t = x8t.host(), .dw = dw8.host});
        const Array got = dw8.device.back();
        expect_fp8_near(what + " " + to_string(format), got, dw8.host);
        for (int64_t i = 0; i < got.size(); ++i) {
          if (l.count(i / (h * d)) > 0) continue;
          ASSERT_EQ(got.get(i), before.get(i)) << what << ": empty group";
        }
        const Pair replaced8(before);
        cuda::grouped_wgrad(nullptr,
                            {.groups = l.device(),
                             .dy8t = dy8t.device(),
                             .x8t = x8t.device(),
                             .dw = replaced8.device,
                             .accumulate = false},
                            workspace());
        cpu::grouped_wgrad(
            {.groups = l.host(), .dy8t = dy8t.host(), .x8t = x8t.host(), .dw = replaced8.host, .accumulate = false});
        const Array instead = replaced8.device.back();
        expect_fp8_near(what + " replaced " + to_string(format), instead, replaced8.host);
        for (int64_t i = 0; i < instead.size(); ++i) {
          if (l.count(i / (h * d)) > 0) continue;
          ASSERT_EQ(instead.get(i), 0) << what << ": empty group, replaced";
        }
      }
    }
  }
}

TEST(CudaGroupedWgrad, NoOffsetsMeanOneGroupOfAllRows) {
  ASSAY_NEEDS_GPU();
  Random random(107);
  struct Case {
    int64_t R, h, d;
  };
  // The longest: few tiles and many rows are shared out evenly.
  for (const auto& [R, h, d] : {Case{16, 384, 256}, Case{208, 384, 256}, Case{3008, 384, 256}, Case{5136, 1024, 768}}) {
    const Pair dy(random_array(random, DType::bf16, {R, h})), x(random_array(random, DType::bf16, {R, d}));
    const Fp8Pair dy8t(random_fp8(random, DType::fp8_e5m2, ScaleMode::tensorwise, h, R)),
        x8t(random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, d, R));
    for (const bool accumulate : {true, false}) {
      const std::string what = std::to_string(R) + " rows" + (accumulate ? "" : " replaced");
      const Array before = random_array(random, DType::f32, {1, h, d});
      const Pair dw(before), dw8(before);
      cuda::grouped_wgrad(nullptr, {.dy = dy.device, .x = x.device, .dw = dw.device, .accumulate = accumulate},
                          workspace());
      cpu::grouped_wgrad({.dy = dy.host, .x = x.host, .dw = dw.host, .accumulate = accumulate});
      expect_near(what, dw.device.back(), dw.host, 1e-5, 2e-5 * rms(dw.host));
      cuda::grouped_wgrad(nullptr,
                          {.dy8t = dy8t.device(), .x8t = x8t.device(), .dw = dw8.device, .accumulate = accumulate},
                          workspace());
      cpu::grouped_wgrad({.dy8t = dy8t.host(), .x8t = x8t.host(), .dw = dw8.host, .accumulate = accumulate});
      expect_fp8_near(what + " FP8", dw8.device.back(), dw8.host);
    }
  }
}

TEST(CudaGroupedGemm, RefusesWhatItHasNoKernelFor) {
  ASSAY_NEEDS_GPU();
  Random random(108);
  const Layout l({4});
  CodesRun run(random, l, 128, 128, codes_cases[0], 1, 0);
  const auto refusal = [&](const GroupedGemmArgs& a) {
    return error_of([&] { cuda::grouped_gemm(nullptr, a, workspace()); });
  };
  GroupedGemmArgs a = run.device;
  a.epilogue = GroupedEpilogue::none;
  EXPECT_NE(refusal(a).find("through relu^2 or its gradient"), std::string::npos);
  a = run.device, a.out8 = {};
  EXPECT_NE(refusal(a).find("out8t beside out8"), std::string::npos);
  a = run.device, a.out8_scale = {};
  EXPECT_NE(refusal(a).find("FP8 outputs need out8_scale"), std::string::npos);
  a = run.device, a.groups.count = 2;
  EXPECT_NE(refusal(a).find("2 groups for weights"), std::string::npos);
  const Mirror x(Array(DType::bf16, {128, 12})), w(Array(DType::bf16, {1, 16, 12})), out(Array(DType::bf16, {128, 16}));
  try {
    cuda::grouped_gemm(nullptr, {.groups = l.device(), .x = x, .w = w, .out = out}, workspace());
    ADD_FAILURE() << "rows of 24 bytes were accepted";
  } catch (const EngineError& error) {
    EXPECT_EQ(error.reason, FailureReason::plan_error);
    EXPECT_NE(std::string(error.what()).find("rows must be multiples of 16 bytes"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace assay
