// Dense products against their twins.
#include "grouped_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t M, N, K;
};
const Shape shapes[] = {{1, 8, 8},         {129, 128, 72},  {300, 768, 768}, {127, 2304, 768},
                        {256, 1536, 1536}, {300, 4000, 72},  // more columns than rows: the rows run first
                        {4096, 768, 136}};                   // tiles of 192 columns fill the last wave better

std::string name(const Shape& s) {
  return std::to_string(s.M) + " x " + std::to_string(s.N) + " x " + std::to_string(s.K);
}

TEST(CudaGemm, Bf16FollowsItsTwinInBothOrientationsWithAndWithoutResidual) {
  ASSAY_NEEDS_GPU();
  Random random(110);
  for (const Shape& s : shapes) {
    for (const bool transpose_b : {true, false}) {
      for (const bool residual : {false, true}) {
        const Pair a(random_array(random, DType::bf16, {s.M, s.K})),
            b(transpose_b ? random_array(random, DType::bf16, {s.N, s.K}, 0.1)
                          : random_array(random, DType::bf16, {s.K, s.N}, 0.1)),
            rest(random_array(random, DType::bf16, {s.M, s.N})), out(poisoned(DType::bf16, {s.M, s.N}));
        GemmArgs host{.a = a.host, .b = b.host, .transpose_b = transpose_b, .out = out.host};
        GemmArgs device{.a = a.device, .b = b.device, .transpose_b = transpose_b, .out = out.device};
        if (residual) host.residual = rest.host, device.residual = rest.device;
        cuda::gemm(nullptr, device, workspace());
        cpu::gemm(host);
        expect_close(name(s) + (transpose_b ? " b^T" : " b") + (residual ? " + residual" : ""), out.device.back(),
                     out.host, 2e-5);
      }
    }
  }
}

TEST(CudaGemm, ResidualMayBeTheOutputItself) {
  ASSAY_NEEDS_GPU();
  Random random(111);
  const Pair a(random_array(random, DType::bf16, {200, 256})), b(random_array(random, DType::bf16, {768, 256}, 0.1)),
      out(random_array(random, DType::bf16, {200, 768}));
  cuda::gemm(nullptr, {.a = a.device, .b = b.device, .out = out.device, .residual = out.device}, workspace());
  cpu::gemm({.a = a.host, .b = b.host, .out = out.host, .residual = out.host});
  expect_close("in place", out.device.back(), out.host, 2e-5);
}

TEST(CudaGemm, WeightGradientsFollowTheTwinAndAccumulate) {
  ASSAY_NEEDS_GPU();
  Random random(112);
  for (const Shape& s : {Shape{768, 768, 3000}, Shape{128, 384, 129}, Shape{136, 72, 1}, Shape{1024, 768, 8192}}) {
    for (const bool accumulate : {false, true}) {
      const Pair a(random_array(random, DType::bf16, {s.K, s.M})), b(random_array(random, DType::bf16, {s.K, s.N})),
          out(random_array(random, DType::f32, {s.M, s.N}));
      cuda::gemm(nullptr,
                 {.a = a.device,
                  .b = b.device,
                  .transpose_a = true,
                  .transpose_b = false,
                  .out = out.device,
                  .accumulate = accumulate},
                 workspace());
      cpu::gemm({.a = a.host,
                 .b = b.host,
                 .transpose_a = true,
                 .transpose_b = false,
                 .out = out.host,
                 .accumulate = accumulate});
      expect_near(name(s), out.device.back(), out.host, 1e-5, 2e-5 * rms(out.host));
    }
  }
}

TEST(CudaGemm, GivesTheSameBitsEveryTime) {
  ASSAY_NEEDS_GPU();
  Random random(113);
  const Mirror a(random_array(random, DType::bf16, {4096, 768})), b(random_array(random, DType::bf16, {4096, 768}));
  Array first;
  for (int i = 0; i < 5; ++i) {
    const Mirror out(poisoned(DType::f32, {768, 768}));
    cuda::gemm(nullptr, {.a = a, .b = b, .transpose_a = true, .transpose_b = false, .out = out}, workspace());
    if (i == 0) first = out.back();
    expect_same("weight gradient", out.back(), first);
  }
}

TEST(CudaGemmFp8, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(114);
  for (const Shape& s : {Shape{1, 16, 16}, Shape{129, 128, 80}, Shape{300, 768, 1536}, Shape{127, 2304, 768}}) {
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      const Fp8Pair a(random_fp8(random, format, ScaleMode::tensorwise, s.M, s.K)),
          b(random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, s.N, s.K));
      const Pair rest(random_array(random, DType::bf16, {s.M, s.N}));
      for (const bool residual : {false, true}) {
        const Pair out(poisoned(DType::bf16, {s.M, s.N}));
        GemmFp8Args host{.a = a.host(), .b = b.host(), .out = out.host};
        GemmFp8Args device{.a = a.device(), .b = b.device(), .out = out.device};
        if (residual) host.residual = rest.host, device.residual = rest.device;
        cuda::gemm_fp8(nullptr, device, workspace());
        cpu::gemm_fp8(host);
        expect_fp8_near(name(s) + " " + to_string(format), out.device.back(), out.host);
      }
      for (const bool accumulate : {false, true}) {
        const Pair out(random_array(random, DType::f32, {s.M, s.N}));
        cuda::gemm_fp8(nullptr, {.a = a.device(), .b = b.device(), .out = out.device, .accumulate = accumulate},
                       workspace());
        cpu::gemm_fp8({.a = a.host(), .b = b.host(), .out = out.host, .accumulate = accumulate});
        expect_fp8_near(name(s) + " f32", out.device.back(), out.host);
      }
    }
  }
}

// Of every 2,048 terms one is as large as 2^15 of the others, as in a gradient of logits: in a single accumulator of
// the tensor cores those behind it would be lost, 2.5 % of the sum or more. Promoted, it is the 23 in front of a
// promotion.
TEST(CudaGemmFp8, LongSumsKeepTheirSmallTerms) {
  ASSAY_NEEDS_GPU();
  Random random(117);
  constexpr int64_t every = 2048;
  for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
    for (const Shape& s : {Shape{130, 200, 32768}, Shape{1, 16, 6144}}) {
      Fp8Array a = random_fp8(random, format, ScaleMode::tensorwise, s.M, s.K),
               b = random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, s.N, s.K);
      const bool e4m3 = format == DType::fp8_e4m3;
      const double small = e4m3 ? 0x1p-8 : 1, large = e4m3 ? 256 : 49152;
      for (int64_t i = 0; i < s.M * s.K; ++i) a.codes.set(i, i % s.K % every == 1000 ? large : small);
      for (int64_t i = 0; i < s.N * s.K; ++i)
        b.codes.set(i, i % s.K % every == 1000 ? (e4m3 ? 0.5 : 0.75) : random.uniform(0.5, 1.5));
      const Fp8Pair pa(a), pb(b);
      for (DType type : {DType::bf16, DType::f32}) {  // f32: a weight gradient
        const Pair out(poisoned(type, {s.M, s.N}));
        cuda::gemm_fp8(nullptr, {.a = pa.device(), .b = pb.device(), .out = out.device, .promote = true}, workspace());
        cpu::gemm_fp8({.a = pa.host(), .b = pb.host(), .out = out.host, .promote = true});
        expect_near(name(s) + " " + to_string(format) + " " + to_string(type), out.device.back(), out.host, 0.01, 0);
      }
    }
  }
}

TEST(CudaGemmFp8, PromotedSumsFollowTheTwin) {
  ASSAY_NEEDS_GPU();
  Random random(118);
  for (const Shape& s : {Shape{1, 16, 16}, Shape{129, 200, 1024}, Shape{300, 768, 1040}, Shape{768, 384, 8192}}) {
    for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
      for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise}) {
        const Fp8Pair a(random_fp8(random, format, mode, s.M, s.K)),
            b(random_fp8(random, DType::fp8_e4m3, mode, s.N, s.K));
        const Pair out(poisoned(DType::bf16, {s.M, s.N}));
        cuda::gemm_fp8(nullptr, {.a = a.device(), .b = b.device(), .out = out.device, .promote = true}, workspace());
        cpu::gemm_fp8({.a = a.host(), .b = b.host(), .out = out.host, .promote = true});
        expect_fp8_near(name(s) + " " + to_string(mode), out.device.back(), out.host);
        if (mode == ScaleMode::rowwise) continue;
        for (const bool accumulate : {false, true}) {
          const Pair dw(random_array(random, DType::f32, {s.M, s.N}));
          cuda::gemm_fp8(
              nullptr, {.a = a.device(), .b = b.device(), .out = dw.device, .accumulate = accumulate, .promote = true},
              workspace());
          cpu::gemm_fp8({.a = a.host(), .b = b.host(), .out = dw.host, .accumulate = accumulate, .promote = true});
          expect_fp8_near(name(s) + " f32", dw.device.back(), dw.host);
        }
      }
    }
  }
}

// Many rows into few tiles: all multiprocessors share the sums of every tile, evenly with and without a tail.
TEST(CudaGemmFp8, LongWeightGradientsFollowTheTwinAndRepeat) {
  ASSAY_NEEDS_GPU();
  Random random(116);
  for (const Shape& s : {Shape{1000, 528, 8208}, Shape{520, 272, 16432}}) {
    for (const bool accumulate : {false, true}) {
      const Fp8Pair a(random_fp8(random, DType::fp8_e5m2, ScaleMode::tensorwise, s.M, s.K)),
          b(random_fp8(random, DType::fp8_e4m3, ScaleMode::tensorwise, s.N, s.K));
      const Array before = random_array(random, DType::f32, {s.M, s.N});
      const Pair out(before);
      cpu::gemm_fp8({.a = a.host(), .b = b.host(), .out = out.host, .accumulate = accumulate});
      cuda::gemm_fp8(nullptr, {.a = a.device(), .b = b.device(), .out = out.device, .accumulate = accumulate},
                     workspace());
      expect_fp8_near(name(s), out.device.back(), out.host);
      for (int i = 0; i < 5; ++i) {
        const Mirror again(before);
        cuda::gemm_fp8(nullptr, {.a = a.device(), .b = b.device(), .out = again, .accumulate = accumulate},
                       workspace());
        expect_same(name(s) + " again", again.back(), out.device.back());
      }
    }
  }
}

TEST(CudaGemm, RefusesWhatItHasNoKernelFor) {
  ASSAY_NEEDS_GPU();
  const Mirror f32(Array(DType::f32, {16, 16})), bf(Array(DType::bf16, {16, 16}));
  EXPECT_NE(error_of([&] { cuda::gemm(nullptr, {.a = f32, .b = f32, .out = f32}, workspace()); }).find("take bf16"),
            std::string::npos);
  EXPECT_NE(error_of([&] { cuda::gemm(nullptr, {.a = bf, .b = bf, .out = f32}, workspace()); }).find("goes to bf16"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
