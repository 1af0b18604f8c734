// Gradients that come out of their producers in FP8: the codes are quantize's of what the plain form stores, bit for
// bit.
#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

// Scale and amax of a delayed scale, on the device; amax begins below or above what the test's values reach.
struct Delayed {
  Mirror state;
  explicit Delayed(double scale, double amax)
      : state([&] {
          Array a(DType::f32, {2});
          a.set(0, scale), a.set(1, amax);
          return a;
        }()) {}
  operator DelayedScale() const { return {state.t().as<float>(), state.t().as<float>() + 1}; }
};

struct Codes {
  Fp8Mirror row, transposed;
  Delayed delayed;
  bool calibrate, want_row, want_transposed;

  Codes(DType format, int64_t N, int64_t columns, int variant)
      : row(poisoned(fp8_array(format, ScaleMode::tensorwise, N, columns))),
        transposed(poisoned(fp8_array(format, ScaleMode::tensorwise, columns, N))),
        delayed(variant % 3 == 0 ? 0 : 0.013, variant % 2 == 0 ? 0 : 1e6),
        calibrate(variant % 4 == 3),
        want_row(variant % 5 != 4),
        want_transposed(variant % 5 != 3) {}
  Quantized out() const { return want_row ? Quantized(row) : Quantized{}; }
  Quantized out_transposed() const { return want_transposed ? Quantized(transposed) : Quantized{}; }

  // Against the twin's codes of `stored` [N, columns].
  void expect(const std::string& what, Array stored, int64_t N, int64_t columns, int variant) const {
    Fp8Array r = fp8_array(row.codes.t().dtype, ScaleMode::tensorwise, N, columns),
             t = fp8_array(row.codes.t().dtype, ScaleMode::tensorwise, columns, N);
    Array state(DType::f32, {2});
    state.set(0, variant % 3 == 0 ? 0 : 0.013), state.set(1, variant % 2 == 0 ? 0 : 1e6);
    cpu::quantize({.x = stored.t().view({N, columns}),
                   .out = want_row ? Quantized(r) : Quantized{},
                   .transposed = want_transposed ? Quantized(t) : Quantized{},
                   .delayed = {state.t().as<float>(), state.t().as<float>() + 1},
                   .calibrate = calibrate});
    if (want_row) expect_same("codes " + what, row.back(), r);
    if (want_transposed) expect_same("transposed " + what, transposed.back(), t);
    expect_same("scale and amax " + what, delayed.state.back(), state);
  }
};

constexpr int variants = 20;  // every pair of those that Codes tells apart

// The transposed codes of normed rows.
struct NormedCodes {
  Fp8Mirror transposed;
  NormedCodes(DType format, int64_t N, int64_t d)
      : transposed(poisoned(fp8_array(format, ScaleMode::tensorwise, d, N))) {}
  void expect(const std::string& what, const Array& n, int64_t N, int64_t d) const {
    const DType format = transposed.codes.t().dtype;
    Fp8Array want = fp8_array(format, ScaleMode::tensorwise, d, N);
    cpu::quantize(
        {.x = n.t().view({N, d}),
         .transposed = want,
         .static_scale = std::sqrt(static_cast<float>(d)) / (format == DType::fp8_e4m3 ? e4m3_max : e5m2_max)});
    expect_same("normed, transposed " + what, transposed.back(), want);
  }
};

TEST(CudaMixNormGrad, WritesTheCodesOfWhatItStores) {
  ASSAY_NEEDS_GPU();
  Random random(60);
  const std::pair<int64_t, int64_t> shapes[] = {{1, 128}, {7, 768}, {160, 768}, {33, 1536}, {48, 40}, {9, 4096}};
  for (const auto& [N, d] : shapes) {
    for (int variant = 0; variant < variants; ++variant) {
      const bool mix = random.integer(0, 1) == 1;
      const DType format = random.integer(0, 1) == 0 ? DType::fp8_e4m3 : DType::fp8_e5m2;
      const std::string what =
          shape_text(DType::bf16, {N, d}) + " variant " + std::to_string(variant) + (mix ? " with lambdas" : "");
      const DType bf = DType::bf16;
      const Mirror dn(random_array(random, bf, {N, d})), n(random_array(random, bf, {N, d})),
          x0(random_array(random, bf, {N, d})), resid(random_array(random, DType::f32, {1})),
          skip(random_array(random, DType::f32, {1}));
      Array rstd_values(DType::f32, {N});
      for (int64_t i = 0; i < N; ++i) rstd_values.set(i, random.uniform(0.5, 2));
      const Mirror rstd(rstd_values);
      const Array dx_in = random_array(random, bf, {N, d}), dx0_in = random_array(random, bf, {N, d});
      const Mirror dx(dx_in), dx0(dx0_in), resid_grad(Array(DType::f32, {1})), skip_grad(Array(DType::f32, {1}));
      const Mirror dx_p(dx_in), dx0_p(dx0_in), resid_grad_p(Array(DType::f32, {1})),
          skip_grad_p(Array(DType::f32, {1}));
      MixNormGradArgs plain{.dn = dn, .n = n, .rstd = rstd, .dx = dx_p},
          fused{.dn = dn, .n = n, .rstd = rstd, .dx = dx};
      if (mix) {
        for (MixNormGradArgs* a : {&plain, &fused}) a->x0 = x0, a->resid_lambda = resid, a->x0_lambda = skip;
        plain.dx0 = dx0_p, plain.resid_lambda_grad = resid_grad_p, plain.x0_lambda_grad = skip_grad_p;
        fused.dx0 = dx0, fused.resid_lambda_grad = resid_grad, fused.x0_lambda_grad = skip_grad;
      }
      const Codes codes(format, N, d, variant);
      fused.dx8 = codes.out(), fused.dx8t = codes.out_transposed();
      fused.dx8_scale = codes.delayed, fused.calibrate = codes.calibrate;
      const DType normed_format = variant == 14 ? DType::fp8_e5m2 : DType::fp8_e4m3;
      const NormedCodes normed(normed_format, N, d), alone(normed_format, N, d);
      const bool want_normed = variant % 3 != 1;
      if (want_normed) fused.n8t = normed.transposed, plain.n8t = alone.transposed;  // alone: without codes of dx
      cuda::mix_norm_grad(nullptr, plain, workspace());
      cuda::mix_norm_grad(nullptr, fused, workspace());
      expect_same("dx " + what, dx.back(), dx_p.back());
      codes.expect(what, dx.back(), N, d, variant);
      if (want_normed) normed.expect(what, n.back(), N, d), alone.expect(what, n.back(), N, d);
      if (!mix) continue;
      expect_same("dx0 " + what, dx0.back(), dx0_p.back());
      expect_same("resid_lambda_grad " + what, resid_grad.back(), resid_grad_p.back());
      expect_same("x0_lambda_grad " + what, skip_grad.back(), skip_grad_p.back());
    }
  }
}

TEST(CudaQkNormRopeGrad, WritesTheCodesOfWhatThePlainFormStores) {
  ASSAY_NEEDS_GPU();
  struct Shape {
    int64_t N, T, H, D;
  };
  const Shape shapes[] = {{8, 4, 6, 128}, {1, 1, 1, 16}, {130, 65, 3, 64}, {320, 80, 2, 128}, {192, 96, 5, 64}};
  Random random(61);
  for (const Shape& s : shapes) {
    Array cos_values(DType::f32, {s.T, s.D / 2}), sin_values(DType::f32, {s.T, s.D / 2});
    rope_table(10000, cos_values, sin_values);
    for (int variant = 0; variant < variants; ++variant) {
      const DType bf = DType::bf16, format = random.integer(0, 1) == 0 ? DType::fp8_e4m3 : DType::fp8_e5m2;
      const bool ve = variant % 7 == 6;
      const std::string what = shape_text(bf, {s.N, 3, s.H, s.D}) + " variant " + std::to_string(variant);
      Array rstd_values(DType::f32, {s.N, 2, s.H});
      for (int64_t i = 0; i < rstd_values.size(); ++i) rstd_values.set(i, random.uniform(0.5, 2));
      const Array dqkv_in = random_array(random, bf, {s.N, 3, s.H, s.D});
      const Mirror qkv(random_array(random, bf, {s.N, 3, s.H, s.D})), cos(cos_values), sin(sin_values),
          rstd(rstd_values), tokens(random_integers(random, {s.N}, 0, 19)),
          table(random_array(random, DType::f32, {20, s.H * s.D})), n(random_array(random, bf, {s.N, s.H * s.D})),
          gate_w(random_array(random, DType::f32, {s.H, 12}, 0.3));
      const Mirror plain_dqkv(dqkv_in), dqkv(dqkv_in);
      const Mirror table_grad(Array(DType::f32, {20, s.H * s.D})), gate_grad(Array(DType::f32, {s.H, 12})),
          dn(Array(bf, {s.N, s.H * s.D}));
      QkNormRopeGradArgs plain{.dqkv = plain_dqkv, .qkv = qkv, .cos = cos, .sin = sin, .rstd = rstd, .T = s.T};
      if (ve)
        plain.tokens = tokens, plain.ve_table = table, plain.n = n, plain.gate_w = gate_w,
        plain.ve_table_grad = table_grad, plain.gate_w_grad = gate_grad, plain.dn = dn;
      QkNormRopeGradArgs fused = plain;
      fused.dqkv = dqkv;
      const int64_t columns = 3 * s.H * s.D;
      const Codes codes(format, s.N, columns, variant);
      fused.dqkv8 = codes.out(), fused.dqkv8t = codes.out_transposed();
      fused.dqkv8_scale = codes.delayed, fused.calibrate = codes.calibrate;
      cuda::qk_norm_rope_grad(nullptr, plain, workspace());
      cuda::qk_norm_rope_grad(nullptr, fused, workspace());
      codes.expect(what, plain_dqkv.back(), s.N, columns, variant);
      if (!codes.want_row || !codes.want_transposed) expect_same("dqkv " + what, dqkv.back(), plain_dqkv.back());
    }
  }
}

// V: a multiple of 128, whose rows fit into shared memory or not; and with a pass of its own.
TEST(CudaSoftcapXent, WritesTheCodesOfWhatThePlainFormStores) {
  ASSAY_NEEDS_GPU();
  Random random(62);
  for (int64_t V : {128, 1000, 4096, 32768, 50304}) {
    for (int64_t C : {1, 16, 127, 128, 129, 500}) {
      if (C * V > 5'000'000) continue;
      for (int variant = 0; variant < 4; ++variant) {
        const DType format = random.integer(0, 1) == 0 ? DType::fp8_e4m3 : DType::fp8_e5m2;
        const bool want_row = variant != 3, want_transposed = variant != 2;
        const std::string what = shape_text(DType::bf16, {C, V}) + " variant " + std::to_string(variant);
        const Array values = random_array(random, DType::bf16, {C, V}, variant == 1 ? 30 : 3);
        Array at = random_integers(random, {C}, 0, V - 1);
        at.set(0, static_cast<double>(V - 1)), at.set(C - 1, 0);
        const Mirror plain_logits(values), logits(values), targets(at), plain_loss(poisoned(DType::f32, {C})),
            loss(poisoned(DType::f32, {C}));
        const Fp8Array none = fp8_array(format, ScaleMode::tensorwise, C, V),
                       none_t = fp8_array(format, ScaleMode::tensorwise, V, C);
        const Fp8Mirror codes(poisoned(none)), codes_t(poisoned(none_t));
        const SoftcapXentArgs plain{plain_logits, targets, plain_loss, 15, 1.0 / 640};
        SoftcapXentArgs with{logits, targets, loss, 15, 1.0 / 640, true};
        if (want_row) with.grad8 = codes;
        if (want_transposed) with.grad8t = codes_t;
        cuda::softcap_xent(nullptr, with, workspace());
        expect_same("codes of a forward pass " + what, codes.back(), poisoned(none));
        with.forward_only = false;
        cuda::softcap_xent(nullptr, plain, workspace());
        cuda::softcap_xent(nullptr, with, workspace());
        Fp8Array want = none, want_t = none_t;
        cpu::quantize({.x = plain_logits.back(),
                       .out = want_row ? Quantized(want) : Quantized{},
                       .transposed = want_transposed ? Quantized(want_t) : Quantized{},
                       .static_scale = gradient_scale(with)});
        expect_same("loss " + what, loss.back(), plain_loss.back());
        if (want_row) expect_same("codes " + what, codes.back(), want);
        if (want_transposed) expect_same("transposed " + what, codes_t.back(), want_t);
        if (!want_row || !want_transposed) expect_same("logits " + what, logits.back(), plain_logits.back());
      }
    }
  }
}

TEST(CudaMixNormGrad, RefusesCodesWithoutADelayedScale) {
  ASSAY_NEEDS_GPU();
  const Mirror x(Array(DType::bf16, {2, 16})), rstd(Array(DType::f32, {2}));
  const Fp8Mirror codes(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 2, 16));
  EXPECT_NE(error_of([&] {
              cuda::mix_norm_grad(nullptr, {.dn = x, .n = x, .rstd = rstd, .dx = x, .dx8 = codes}, workspace());
            }).find("FP8 outputs need a delayed scale"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
