#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t N, T, H, D;
};
const Shape shapes[] = {{8, 4, 6, 128}, {1, 1, 1, 16}, {130, 65, 3, 64}, {300, 100, 12, 128}, {34, 17, 5, 32}};

struct Rope {
  Array cos, sin, tokens, ve, n, gate_w;
  Rope(Random& random, DType dtype, const Shape& s)
      : cos(DType::f32, {s.T, s.D / 2}),
        sin(DType::f32, {s.T, s.D / 2}),
        tokens(random_integers(random, {s.N}, 0, 19)),
        ve(random_array(random, DType::f32, {20, s.H * s.D})),
        n(random_array(random, dtype, {s.N, s.H * s.D})),
        gate_w(random_array(random, DType::f32, {s.H, 12}, 0.3)) {
    rope_table(10000, cos, sin);
  }
};

TEST(CudaQkNormRope, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(10);
  for (const Shape& s : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (bool ve : {false, true}) {
        const std::string what = shape_text(dtype, {s.N, 3, s.H, s.D}) + (ve ? " with value embeddings" : "");
        const Rope r(random, dtype, s);
        Array qkv = random_array(random, dtype, {s.N, 3, s.H, s.D}), rstd = poisoned(DType::f32, {s.N, 2, s.H});
        const Mirror dqkv(qkv), drstd(rstd), cos(r.cos), sin(r.sin), tokens(r.tokens), table(r.ve), n(r.n),
            gate_w(r.gate_w);
        if (ve) {
          cuda::qk_norm_rope(nullptr, {dqkv, cos, sin, drstd, s.T, tokens, table, n, gate_w});
          cpu::qk_norm_rope({qkv, r.cos, r.sin, rstd, s.T, r.tokens, r.ve, r.n, r.gate_w});
        } else {
          cuda::qk_norm_rope(nullptr, {.qkv = dqkv, .cos = cos, .sin = sin, .rstd = drstd, .T = s.T});
          cpu::qk_norm_rope({.qkv = qkv, .cos = r.cos, .sin = r.sin, .rstd = rstd, .T = s.T});
        }
        expect_close("qkv " + what, dqkv.back(), qkv);
        expect_close("rstd " + what, drstd.back(), rstd);
      }
    }
  }
}

TEST(CudaQkNormRopeGrad, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(11);
  for (const Shape& s : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (bool ve : {false, true}) {
        const std::string what = shape_text(dtype, {s.N, 3, s.H, s.D}) + (ve ? " with value embeddings" : "");
        const Rope r(random, dtype, s);
        const Array qkv = random_array(random, dtype, {s.N, 3, s.H, s.D});
        Array dqkv = random_array(random, dtype, {s.N, 3, s.H, s.D}), rstd(DType::f32, {s.N, 2, s.H});
        for (int64_t i = 0; i < rstd.size(); ++i) rstd.set(i, random.uniform(0.5, 2));
        Array table_grad = random_array(random, DType::f32, {20, s.H * s.D}),
              gate_grad = random_array(random, DType::f32, {s.H, 12}),
              dn = random_array(random, dtype, {s.N, s.H * s.D});
        const Mirror mdqkv(dqkv), mqkv(qkv), cos(r.cos), sin(r.sin), mrstd(rstd), tokens(r.tokens), table(r.ve), n(r.n),
            gate_w(r.gate_w), mtable_grad(table_grad), mgate_grad(gate_grad), mdn(dn);
        if (ve) {
          cuda::qk_norm_rope_grad(
              nullptr, {mdqkv, mqkv, cos, sin, mrstd, s.T, tokens, table, n, gate_w, mtable_grad, mgate_grad, mdn},
              workspace());
          cpu::qk_norm_rope_grad(
              {dqkv, qkv, r.cos, r.sin, rstd, s.T, r.tokens, r.ve, r.n, r.gate_w, table_grad, gate_grad, dn});
          expect_close("ve_table_grad " + what, mtable_grad.back(), table_grad, 1e-5);
          expect_close("gate_w_grad " + what, mgate_grad.back(), gate_grad, 3e-5);
          expect_close("dn " + what, mdn.back(), dn, 2e-5);
        } else {
          cuda::qk_norm_rope_grad(
              nullptr, {.dqkv = mdqkv, .qkv = mqkv, .cos = cos, .sin = sin, .rstd = mrstd, .T = s.T}, workspace());
          cpu::qk_norm_rope_grad({.dqkv = dqkv, .qkv = qkv, .cos = r.cos, .sin = r.sin, .rstd = rstd, .T = s.T});
        }
        expect_close("dqkv " + what, mdqkv.back(), dqkv);
      }
    }
  }
}

TEST(CudaQkNormRope, RefusesAnUnknownHeadSize) {
  ASSAY_NEEDS_GPU();
  const Mirror qkv(Array(DType::f32, {2, 3, 1, 48})), cos(Array(DType::f32, {2, 24})),
      rstd(Array(DType::f32, {2, 2, 1}));
  EXPECT_NE(error_of([&] {
              cuda::qk_norm_rope(nullptr, {.qkv = qkv, .cos = cos, .sin = cos, .rstd = rstd, .T = 2});
            }).find("head size other than 16, 32, 64 and 128"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
