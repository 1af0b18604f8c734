#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t N, d;
};
const Shape shapes[] = {{1, 128}, {7, 768}, {130, 768}, {33, 1536}, {5, 40}, {9, 4096}, {257, 256}, {64, 1000}};
const DType dtypes[] = {DType::bf16, DType::f32};

TEST(CudaEmbedNorm, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(1);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : dtypes) {
      const std::string what = shape_text(dtype, {N, d});
      const Array tokens = random_integers(random, {N}, 0, 40), table = random_array(random, DType::f32, {41, d});
      Array x = poisoned(dtype, {N, d}), rstd = poisoned(DType::f32, {N});
      const Mirror dtokens(tokens), dtable(table), dx(x), drstd(rstd);
      cuda::embed_norm(nullptr, {dtokens, dtable, dx, drstd});
      cpu::embed_norm({tokens, table, x, rstd});
      expect_close("x " + what, dx.back(), x);
      expect_close("rstd " + what, drstd.back(), rstd);
    }
  }
}

TEST(CudaMixNorm, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(2);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : dtypes) {
      for (bool mix : {false, true}) {
        const std::string what = shape_text(dtype, {N, d}) + (mix ? " with lambdas" : "");
        const Array x_in = random_array(random, dtype, {N, d}), x0 = random_array(random, dtype, {N, d});
        const Array resid = random_array(random, DType::f32, {1}), skip = random_array(random, DType::f32, {1});
        Array x = poisoned(dtype, {N, d}), n = poisoned(dtype, {N, d}), rstd = poisoned(DType::f32, {N});
        const Mirror dx_in(x_in), dx0(x0), dresid(resid), dskip(skip), dx(x), dn(n), drstd(rstd);
        if (mix) {
          cuda::mix_norm(nullptr, {dx_in, dx0, dresid, dskip, dx, dn, drstd});
          cpu::mix_norm({x_in, x0, resid, skip, x, n, rstd});
          expect_same("x " + what, dx.back(), x);
        } else {
          cuda::mix_norm(nullptr, {.x_in = dx_in, .n = dn, .rstd = drstd});
          cpu::mix_norm({.x_in = x_in, .n = n, .rstd = rstd});
        }
        expect_close("n " + what, dn.back(), n);
        expect_close("rstd " + what, drstd.back(), rstd);
      }
    }
  }
}

TEST(CudaMixNorm, AddsTheExpertSumAsCombineDoes) {
  ASSAY_NEEDS_GPU();
  Random random(7);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : dtypes) {
      for (int64_t k : {1, 2, 3}) {
        for (bool mix : {false, true}) {
          const int64_t R = N * k + 5;
          const Array x_in = random_array(random, dtype, {N, d}), x0 = random_array(random, dtype, {N, d});
          const Array resid = random_array(random, DType::f32, {1}), skip = random_array(random, DType::f32, {1});
          const Array y = random_array(random, dtype, {R, d}), shared = random_array(random, dtype, {N, d});
          const Array weights = random_array(random, DType::f32, {N, k}),
                      slot = random_integers(random, {N, k}, 0, R - 1);
          Array x = poisoned(dtype, {N, d}), n = poisoned(dtype, {N, d}), rstd = poisoned(DType::f32, {N});
          const Mirror dx_in(x_in), dx0(x0), dresid(resid), dskip(skip), dx(x), dn(n), drstd(rstd), dy(y),
              dshared(shared), dweights(weights), dslot(slot);
          MixNormArgs device{.x_in = dx_in, .x = dx, .n = dn, .rstd = drstd, .add = {dy, dslot, dweights, dshared}};
          MixNormArgs host{.x_in = x_in, .x = x, .n = n, .rstd = rstd, .add = {y, slot, weights, shared}};
          if (mix) {
            device.x0 = dx0, device.resid_lambda = dresid, device.x0_lambda = dskip;
            host.x0 = x0, host.resid_lambda = resid, host.x0_lambda = skip;
          }
          cuda::mix_norm(nullptr, device);
          cpu::mix_norm(host);
          const std::string what = shape_text(dtype, {N, d}) + " k " + std::to_string(k) + (mix ? " with lambdas" : "");
          expect_same("x " + what, dx.back(), x);
          expect_close("n " + what, dn.back(), n);
          expect_close("rstd " + what, drstd.back(), rstd);
        }
      }
    }
  }
}

// The FP8 copy is that of the rounded n which the kernel itself wrote, bit for bit.
TEST(CudaMixNorm, QuantisesWhatItWrote) {
  ASSAY_NEEDS_GPU();
  Random random(3);
  for (const auto& [N, d] : shapes) {
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
        for (DType dtype : dtypes) {
          Array x_in = random_array(random, dtype, {N, d}), n(dtype, {N, d}), rstd(DType::f32, {N});
          if (N > 1)
            for (int64_t j = 0; j < d; ++j) x_in.set(d + j, 0);  // a row of zeros has scale 1
          Fp8Array want = fp8_array(format, mode, N, d);
          const Fp8Mirror n8(poisoned(want));
          const Mirror dx_in(x_in), dn(n), drstd(rstd);
          cuda::mix_norm(nullptr, {.x_in = dx_in, .n = dn, .rstd = drstd, .n8 = n8});
          QuantizeArgs args{.x = n, .out = want};
          n = dn.back();
          args.x = n;
          if (mode == ScaleMode::tensorwise)
            args.static_scale = std::sqrt(static_cast<float>(d)) / (format == DType::fp8_e4m3 ? e4m3_max : e5m2_max);
          cpu::quantize(args);
          expect_same(std::string(to_string(mode)) + " " + n.t().describe(), n8.back(), want);
        }
      }
    }
  }
}

TEST(CudaMixNormGrad, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(4);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : dtypes) {
      for (int variant = 0; variant < 4; ++variant) {  // bit 0: lambdas; bit 1: no norm branch, dx0 in f32
        const bool mix = variant % 2 == 1, special = variant >= 2;
        if (special && !mix) continue;
        const std::string what = shape_text(dtype, {N, d}) + " variant " + std::to_string(variant);
        const DType dx0_type = special ? DType::f32 : dtype;
        const Array dn = random_array(random, dtype, {N, d}), n = random_array(random, dtype, {N, d});
        const Array x0 = random_array(random, dtype, {N, d});
        Array rstd = random_array(random, DType::f32, {N}), resid(DType::f32, {1}), skip(DType::f32, {1});
        for (int64_t i = 0; i < N; ++i) rstd.set(i, random.uniform(0.5, 2));
        resid.set(0, 0.9), skip.set(0, 0.2);
        Array dx = random_array(random, dtype, {N, d}), dx0 = random_array(random, dx0_type, {N, d});
        Array resid_grad = random_array(random, DType::f32, {1}), skip_grad = random_array(random, DType::f32, {1});
        const Mirror ddn(dn), dnn(n), dx0_in(x0), drstd(rstd), dresid(resid), dskip(skip), ddx(dx), ddx0(dx0),
            dresid_grad(resid_grad), dskip_grad(skip_grad);
        const Tensor none;
        if (mix) {
          cuda::mix_norm_grad(
              nullptr,
              {special ? none : ddn.t(), dnn, drstd, dx0_in, dresid, dskip, ddx, ddx0, dresid_grad, dskip_grad},
              workspace());
          cpu::mix_norm_grad({special ? none : dn.t(), n, rstd, x0, resid, skip, dx, dx0, resid_grad, skip_grad});
          expect_close("dx0 " + what, ddx0.back(), dx0);
          const double size = std::sqrt(static_cast<double>(N * d));  // of a sum of N * d terms around 0
          EXPECT_NEAR(dresid_grad.back().get(0), resid_grad.get(0), 1e-5 * size) << what;
          EXPECT_NEAR(dskip_grad.back().get(0), skip_grad.get(0), 1e-5 * size) << what;
        } else {
          cuda::mix_norm_grad(nullptr, {.dn = ddn, .n = dnn, .rstd = drstd, .dx = ddx}, workspace());
          cpu::mix_norm_grad({.dn = dn, .n = n, .rstd = rstd, .dx = dx});
        }
        expect_close("dx " + what, ddx.back(), dx);
      }
    }
  }
}

struct Tokens {
  int64_t N, vocabulary;
  enum { any, one, distinct } kind;
};
const Tokens token_cases[] = {{1, 1, Tokens::any},         {5, 70000, Tokens::any},    {129, 7, Tokens::any},
                              {1025, 300, Tokens::any},    {2048, 65536, Tokens::any}, {1500, 50, Tokens::one},
                              {4000, 1000, Tokens::any},   {32, 9, Tokens::any},       {64, 2, Tokens::one},
                              {700, 700, Tokens::distinct}};

Array tokens_of(Random& random, const Tokens& c) {
  Array tokens = random_integers(random, {c.N}, 0, c.vocabulary - 1);
  if (c.kind == Tokens::one) tokens.fill(static_cast<double>(c.vocabulary - 2));
  if (c.kind == Tokens::distinct)
    for (int64_t i = 0; i < c.N; ++i) tokens.set(i, static_cast<double>(i * 37 % c.vocabulary));
  return tokens;
}

TEST(CudaEmbedGrad, FollowsItsTwinAndIsItBitForBitWithDistinctTokens) {
  ASSAY_NEEDS_GPU();
  Random random(5);
  for (const Tokens& c : token_cases) {
    for (DType dtype : dtypes) {
      const int64_t d = c.vocabulary > 2000 ? 8 : dtype == DType::f32 ? 40 : 768;
      const Array tokens = tokens_of(random, c), dy = random_array(random, dtype, {c.N, d});
      Array grad = random_array(random, DType::f32, {c.vocabulary, d});
      const Mirror dtokens(tokens), ddy(dy), dgrad(grad), again(grad);
      cuda::embed_grad(nullptr, {dtokens, ddy, dgrad}, workspace());
      cuda::embed_grad(nullptr, {dtokens, ddy, again}, workspace());
      cpu::embed_grad({tokens, dy, grad});
      const std::string what = "N " + std::to_string(c.N) + " vocabulary " + std::to_string(c.vocabulary);
      if (c.kind == Tokens::distinct) expect_same(what, dgrad.back(), grad);
      expect_close(what, dgrad.back(), grad, 2e-5);
      expect_same("a second run", again.back(), dgrad.back());
    }
  }
}

TEST(CudaEmbedNormGrad, FollowsItsTwinAndRepeatsItself) {
  ASSAY_NEEDS_GPU();
  Random random(6);
  for (const Tokens& c : token_cases) {
    for (DType dtype : dtypes) {
      for (bool wide : {false, true}) {
        const int64_t d = c.vocabulary > 2000 ? 8 : 768;
        const DType dx_type = wide ? DType::f32 : dtype;
        const Array tokens = tokens_of(random, c), x = random_array(random, dtype, {c.N, d});
        const Array rstd = random_array(random, DType::f32, {c.N}), dx = random_array(random, dx_type, {c.N, d});
        Array grad = random_array(random, DType::f32, {c.vocabulary, d});
        const Mirror dtokens(tokens), dxx(x), drstd(rstd), ddx(dx), dgrad(grad), again(grad);
        cuda::embed_norm_grad(nullptr, {dtokens, dxx, drstd, ddx, dgrad}, workspace());
        cuda::embed_norm_grad(nullptr, {dtokens, dxx, drstd, ddx, again}, workspace());
        cpu::embed_norm_grad({tokens, x, rstd, dx, grad});
        expect_close("N " + std::to_string(c.N) + " vocabulary " + std::to_string(c.vocabulary), dgrad.back(), grad,
                     2e-5);
        expect_same("a second run", again.back(), dgrad.back());
      }
    }
  }
}

TEST(CudaNorm, RefusesWhatItCannotDo) {
  ASSAY_NEEDS_GPU();
  const Mirror wide(Array(DType::f64, {2, 16})), odd(Array(DType::f32, {2, 12})),
      long_row(Array(DType::f32, {1, 8192}));
  const Mirror rstd(Array(DType::f32, {2}));
  EXPECT_NE(error_of([&] {
              cuda::mix_norm(nullptr, {.x_in = wide, .n = wide, .rstd = rstd});
            }).find("cannot work on f64 on CUDA"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              cuda::mix_norm(nullptr, {.x_in = odd, .n = odd, .rstd = rstd});
            }).find("f32[2, 12]; on CUDA rows are whole 16-byte vectors"),
            std::string::npos);
  const Mirror one(Array(DType::f32, {1}));
  EXPECT_NE(error_of([&] {
              cuda::mix_norm(nullptr, {.x_in = long_row, .n = long_row, .rstd = one});
            }).find("= 8192; the cuda backend takes at most 4096"),
            std::string::npos);
  const Mirror x(Array(DType::f32, {100000}));
  EXPECT_NE(error_of([&] {
              cuda::sum(nullptr, {x, reinterpret_cast<double*>(one.t().data)}, cuda::Workspace(nullptr, 8));
            }).find("bytes of workspace, there are 8"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
