#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t N, d, E, k;
};
// Tiles of 32 rows with few experts and up to 768 columns, in part or as a whole; what is larger goes row by row.
const Shape shapes[] = {{1, 768, 8, 2},    {1, 8, 1, 1},      {32, 768, 8, 2},   {33, 768, 8, 2},  {1296, 768, 8, 2},
                        {8992, 768, 8, 2}, {128, 128, 4, 1},  {48, 256, 3, 3},   {65, 264, 5, 4},  {100, 1536, 64, 8},
                        {70, 256, 128, 8}, {300, 1000, 3, 3}, {90, 768, 128, 4}, {127, 4096, 8, 2}};

struct Inputs {
  Array dxg, slot, shared, gate_grad, picks, probs, weights, n, rstd, w, dw, dx;
  Inputs(Random& random, const Shape& s, DType dtype, int64_t R, bool everything_to_one)
      : dxg(random_array(random, dtype, {R, s.d})),
        slot(random_integers(random, {s.N, s.k}, 0, R - 1)),
        shared(random_array(random, dtype, {s.N, s.d})),
        gate_grad(random_array(random, DType::f32, {R})),
        picks(DType::i32, {s.N, s.k}),
        probs(DType::f32, {s.N, s.k}),
        weights(random_array(random, DType::f32, {s.N, s.k})),
        n(random_array(random, dtype, {s.N, s.d})),
        rstd(DType::f32, {s.N}),
        w(random_array(random, DType::f32, {s.E, s.d})),
        dw(random_array(random, DType::f32, {s.E, s.d})),
        dx(random_array(random, dtype, {s.N, s.d})) {
    for (int64_t t = 0; t < s.N; ++t) {
      rstd.set(t, random.uniform(0.5, 2));
      const int64_t first = everything_to_one ? s.E - 1 : random.integer(0, s.E - 1);
      for (int64_t j = 0; j < s.k; ++j) {
        picks.set(t * s.k + j, static_cast<double>((first + j) % s.E));
        probs.set(t * s.k + j, random.uniform(0.05, 0.95));
      }
    }
  }
  MoeNormGradArgs args() { return {dxg, slot, shared, gate_grad, picks, probs, weights, n, rstd, w, dw, dx}; }
};

// The inputs on the device, as they were when it was made.
struct OnDevice {
  Mirror dxg, slot, shared, gate_grad, picks, probs, weights, n, rstd, w, dw, dx;
  explicit OnDevice(const Inputs& i)
      : dxg(i.dxg),
        slot(i.slot),
        shared(i.shared),
        gate_grad(i.gate_grad),
        picks(i.picks),
        probs(i.probs),
        weights(i.weights),
        n(i.n),
        rstd(i.rstd),
        w(i.w),
        dw(i.dw),
        dx(i.dx) {}
  MoeNormGradArgs args() const { return {dxg, slot, shared, gate_grad, picks, probs, weights, n, rstd, w, dw, dx}; }
};

std::string text_of(const Shape& s, DType dtype) {
  return shape_text(dtype, {s.N, s.d}) + ", " + std::to_string(s.k) + " of " + std::to_string(s.E);
}

TEST(CudaMoeNormGrad, FollowsItsTwinAndRepeatsItself) {
  ASSAY_NEEDS_GPU();
  Random random(40);
  for (const Shape& s : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (bool everything_to_one : {false, true}) {
        if (s.N * s.d > 1'000'000 && everything_to_one) continue;
        const std::string what = text_of(s, dtype) + (everything_to_one ? ", all to one" : "");
        Inputs host(random, s, dtype, s.N * s.k + 9, everything_to_one);
        const OnDevice device(host), again(host);
        cuda::moe_norm_grad(nullptr, device.args(), workspace());
        cuda::moe_norm_grad(nullptr, again.args(), workspace());
        cpu::moe_norm_grad(host.args());
        expect_close("dx " + what, device.dx.back(), host.dx);
        expect_close("router_w_grad " + what, device.dw.back(), host.dw, 1e-5);
        expect_same("dx of a second run, " + what, again.dx.back(), device.dx.back());
        expect_same("router_w_grad of a second run, " + what, again.dw.back(), device.dw.back());
      }
    }
  }
}

// With or without codes the same dx; the codes are those of what was stored, bit for bit.
TEST(CudaMoeNormGrad, QuantisesWhatItWrote) {
  ASSAY_NEEDS_GPU();
  Random random(41);
  for (const Shape& s : shapes) {
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      for (int variant = 0; variant < 12; ++variant) {  // bits 0 and 1: outputs; then no scale, a scale, calibration
        const int outputs = variant % 4, kind = variant / 4;
        if (outputs == 0 || (s.N * s.d > 1'000'000 && outputs != 3)) continue;
        Inputs host(random, s, DType::bf16, s.N * s.k + 9, false);
        const OnDevice device(host), plain(host);
        Fp8Array want = fp8_array(format, ScaleMode::tensorwise, s.N, s.d),
                 want_t = fp8_array(format, ScaleMode::tensorwise, s.d, s.N);
        const Fp8Mirror codes(poisoned(want)), codes_t(poisoned(want_t));
        Array scale(DType::f32, {1}), amax(DType::f32, {1});
        if (kind == 1) scale.set(0, 0.003);
        amax.set(0, 0.25);
        const Mirror dscale(scale), damax(amax);
        MoeNormGradArgs args = device.args();
        if ((outputs & 1) != 0) args.dx8 = codes;
        if ((outputs & 2) != 0) args.dx8t = codes_t;
        args.dx8_scale = {dscale.t().as<float>(), damax.t().as<float>()};
        args.calibrate = kind == 2;
        const bool other_format = kind == 1 && outputs == 1;  // a separate pass
        Fp8Array want_n = fp8_array(other_format ? DType::fp8_e5m2 : DType::fp8_e4m3, ScaleMode::tensorwise, s.d, s.N);
        const Fp8Mirror n8t(poisoned(want_n));
        if (outputs != 2) args.n8t = n8t;
        cuda::moe_norm_grad(nullptr, args, workspace());
        cuda::moe_norm_grad(nullptr, plain.args(), workspace());
        const std::string what = text_of(s, format) + ", variant " + std::to_string(variant);
        expect_same("dx " + what, device.dx.back(), plain.dx.back());
        expect_same("router_w_grad " + what, device.dw.back(), plain.dw.back());
        const Array dx = device.dx.back();
        QuantizeArgs q{.x = dx, .delayed = {scale.t().as<float>(), amax.t().as<float>()}, .calibrate = kind == 2};
        if ((outputs & 1) != 0) q.out = want;
        if ((outputs & 2) != 0) q.transposed = want_t;
        cpu::quantize(q);
        if ((outputs & 1) != 0) expect_same("dx8 " + what, codes.back(), want);
        if ((outputs & 2) != 0) expect_same("dx8t " + what, codes_t.back(), want_t);
        expect_same("amax " + what, damax.back(), amax);
        if (outputs == 2) continue;
        cpu::quantize({.x = host.n,
                       .transposed = want_n,
                       .static_scale = std::sqrt(static_cast<float>(s.d)) / (other_format ? e5m2_max : e4m3_max)});
        expect_same("n8t " + what, n8t.back(), want_n);
      }
    }
  }
}

TEST(CudaMoeNormGrad, RefusesWhatItCannotDo) {
  ASSAY_NEEDS_GPU();
  Random random(42);
  Inputs many(random, {2, 8, 300, 2}, DType::bf16, 9, false);
  EXPECT_NE(error_of([&] {
              cuda::moe_norm_grad(nullptr, OnDevice(many).args(), workspace());
            }).find("model.experts = 300; the cuda backend takes at most 128"),
            std::string::npos);
  Inputs odd(random, {2, 12, 4, 2}, DType::bf16, 9, false);
  EXPECT_NE(error_of([&] {
              cuda::moe_norm_grad(nullptr, OnDevice(odd).args(), workspace());
            }).find("on CUDA rows are whole 16-byte vectors"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
