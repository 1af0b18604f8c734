// The packed projection with QK-norm + RoPE in its epilogue: against its twin, and against the product and
// qk_norm_rope of the same device, from which only the order of a sum and the kind of its root may tell it apart.
#include "grouped_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t B, T, H, K;
  int64_t D = 128;
  int64_t N() const { return B * T; }
  int64_t columns() const { return 3 * H * D; }
  std::string describe() const {
    return std::to_string(B) + " x " + std::to_string(T) + " rows, " + std::to_string(H) + " heads of " +
           std::to_string(D) + ", K " + std::to_string(K);
  }
};

// An odd number of heads leaves half a tile; the last but one has more tiles than there are multiprocessors, and so has
// the last, of short sequences.
std::vector<Shape> shapes(Random& random) {
  std::vector<Shape> all = {{1, 1, 1, 16},    {3, 70, 2, 80},   {3, 100, 3, 768},
                            {1, 129, 5, 272}, {5, 700, 6, 144}, {1100, 3, 6, 64}};
  const int64_t heads[] = {1, 2, 3, 5, 6};
  for (int i = 0; i < 5; ++i)
    all.push_back({random.integer(1, 4), random.integer(1, 300), heads[i], 16 * random.integer(1, 60)});
  return all;
}

// What an operand of the product is made of.
enum class Kind { bf16, tensorwise, rowwise, blockwise };
const char* name(Kind k) {
  return k == Kind::bf16 ? " BF16" : k == Kind::tensorwise ? " E4M3" : k == Kind::rowwise ? " rowwise" : " blockwise";
}

struct Case {
  Shape s;
  Kind kind;
  bool ve;
  Pair x, w, cos, sin, tokens, table, n, gate_w;
  Fp8Pair x8{Fp8Array{}}, w8{Fp8Array{}};

  Case(Random& random, const Shape& s, Kind kind, bool ve) : s(s), kind(kind), ve(ve) {
    Array c(DType::f32, {s.T, s.D / 2}), si(DType::f32, {s.T, s.D / 2});
    rope_table(10000, c, si);
    cos = Pair(c), sin = Pair(si);
    tokens = Pair(random_integers(random, {s.N()}, 0, 19));
    table = Pair(random_array(random, DType::f32, {20, s.H * s.D}));
    n = Pair(random_array(random, DType::bf16, {s.N(), s.K}));
    gate_w = Pair(random_array(random, DType::f32, {s.H, 12}, 0.3));
    if (kind == Kind::bf16) {
      x = Pair(random_array(random, DType::bf16, {s.N(), s.K}));
      w = Pair(random_array(random, DType::bf16, {s.columns(), s.K}, 0.1));
      return;
    }
    const ScaleMode modes[][2] = {{ScaleMode::tensorwise, ScaleMode::tensorwise},
                                  {ScaleMode::rowwise, ScaleMode::rowwise},
                                  {ScaleMode::block_1x128, ScaleMode::block_128x128}};
    const auto& mode = modes[static_cast<int>(kind) - 1];
    x8 = Fp8Pair(random_fp8(random, DType::fp8_e4m3, mode[0], s.N(), s.K));
    w8 = Fp8Pair(random_fp8(random, DType::fp8_e4m3, mode[1], s.columns(), s.K));
  }

  Array empty_qkv() const { return poisoned(DType::bf16, {s.N(), 3, s.H, s.D}); }
  Array empty_rstd() const { return poisoned(DType::f32, {s.N(), 2, s.H}); }
  ProjectQkvArgs host(const Array& qkv, const Array& rstd) const { return args(qkv, rstd, false); }
  ProjectQkvArgs device(const Mirror& qkv, const Mirror& rstd) const { return args(qkv, rstd, true); }
  std::string describe() const { return s.describe() + name(kind) + (ve ? " with value embeddings" : ""); }

 private:
  ProjectQkvArgs args(const Tensor& qkv, const Tensor& rstd, bool on_device) const {
    const auto of = [&](const Pair& p) { return on_device ? p.device.t() : p.host.t(); };
    const auto codes_of = [&](const Fp8Pair& p) { return on_device ? p.device() : p.host(); };
    ProjectQkvArgs a{.rope = {.qkv = qkv, .cos = of(cos), .sin = of(sin), .rstd = rstd, .T = s.T}};
    if (kind == Kind::bf16)
      a.x = of(x), a.w = of(w);
    else
      a.x8 = codes_of(x8), a.w8 = codes_of(w8);
    if (ve) a.rope.tokens = of(tokens), a.rope.ve_table = of(table), a.rope.n = of(n), a.rope.gate_w = of(gate_w);
    return a;
  }
};

// q and k, or v, of a packed projection.
Array part(const Array& qkv, const Shape& s, bool v) {
  const int64_t width = s.H * s.D, first = v ? 2 * width : 0, count = v ? width : 2 * width;
  Array to(qkv.dtype(), {s.N(), count});
  for (int64_t r = 0; r < s.N(); ++r)
    std::memcpy(to.t().as<uint16_t>() + r * count, qkv.t().as<uint16_t>() + r * 3 * width + first,
                static_cast<size_t>(count) * 2);
  return to;
}

// A column that the product rounds the other way moves what it rotates into, or is added to, by as much, however small
// that is: by up to 2^-7 of a pair's length, and heads of root mean square 1 have pairs up to 5 long.
void expect_near_twin(const std::string& what, const Case& c, const Array& qkv, const Array& rstd, const Array& want,
                      const Array& want_rstd) {
  const bool fp8 = c.kind != Kind::bf16;
  const Array v = part(want, c.s, true);
  expect_near("q, k " + what, part(qkv, c.s, false), part(want, c.s, false), std::ldexp(1.001, -7), fp8 ? 0.06 : 0.04);
  expect_near("v " + what, part(qkv, c.s, true), v, std::ldexp(1.001, -6),
              ((c.ve ? 0.04 : 0) + (fp8 ? fp8_noise : 2e-5)) * rms(v));
  expect_near("rstd " + what, rstd, want_rstd, fp8 ? 5e-3 : 2e-3, 0);
}

void follows_its_twin(Random& random, const Shape& s, Kind kind, bool ve) {
  const Case c(random, s, kind, ve);
  const Array qkv = c.empty_qkv(), rstd = c.empty_rstd();
  const Mirror dqkv(qkv), drstd(rstd);
  cuda::project_qkv(nullptr, c.device(dqkv, drstd), workspace());
  cpu::project_qkv(c.host(qkv, rstd));
  expect_near_twin(c.describe(), c, dqkv.back(), drstd.back(), qkv, rstd);
}

TEST(CudaProjectQkv, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(120);
  for (const Shape& s : shapes(random)) {
    for (Kind kind : {Kind::bf16, Kind::tensorwise}) {
      for (bool ve : {false, true}) follows_its_twin(random, s, kind, ve);
    }
  }
}

TEST(CudaProjectQkv, FollowsItsTwinWhereItIsTwoOps) {
  ASSAY_NEEDS_GPU();
  Random random(121);
  for (bool ve : {false, true}) {
    follows_its_twin(random, {3, 50, 3, 96, 64}, Kind::bf16, ve);
    follows_its_twin(random, {3, 50, 3, 96, 64}, Kind::tensorwise, ve);
    follows_its_twin(random, {2, 77, 2, 256}, Kind::rowwise, ve);
    follows_its_twin(random, {2, 77, 2, 256}, Kind::blockwise, ve);
  }
}

TEST(CudaProjectQkv, IsTheProductAndThenQkNormRope) {
  ASSAY_NEEDS_GPU();
  Random random(122);
  for (const Shape& s : shapes(random)) {
    for (Kind kind : {Kind::bf16, Kind::tensorwise}) {
      for (bool ve : {false, true}) {
        const Case c(random, s, kind, ve);
        const Mirror qkv(c.empty_qkv()), rstd(c.empty_rstd()), again(c.empty_qkv()), again_rstd(c.empty_rstd()),
            two(c.empty_qkv()), two_rstd(c.empty_rstd());
        cuda::project_qkv(nullptr, c.device(qkv, rstd), workspace());
        cuda::project_qkv(nullptr, c.device(again, again_rstd), workspace());
        const ProjectQkvArgs a = c.device(two, two_rstd);
        const Tensor out = a.rope.qkv.view({s.N(), s.columns()});
        if (kind == Kind::bf16)
          cuda::gemm(nullptr, {.a = a.x, .b = a.w, .out = out}, workspace());
        else
          cuda::gemm_fp8(nullptr, {.a = a.x8, .b = a.w8, .out = out}, workspace());
        cuda::qk_norm_rope(nullptr, a.rope);
        const Array got = qkv.back(), want = two.back();
        expect_same("v " + c.describe(), part(got, s, true), part(want, s, true));
        expect_close("q, k " + c.describe(), part(got, s, false), part(want, s, false));
        expect_close("rstd " + c.describe(), rstd.back(), two_rstd.back());
        expect_same("a second time, " + c.describe(), again.back(), got);
        expect_same("a second time, rstd " + c.describe(), again_rstd.back(), rstd.back());
      }
    }
  }
}

TEST(CudaProjectQkv, RefusesOperandsThatDoNotFit) {
  ASSAY_NEEDS_GPU();
  const Mirror qkv(Array(DType::bf16, {4, 3, 1, 128})), cos(Array(DType::f32, {2, 64})),
      rstd(Array(DType::f32, {4, 2, 1})), x(Array(DType::bf16, {4, 64})), w(Array(DType::bf16, {384, 72}));
  ProjectQkvArgs a{.x = x, .w = w, .rope = {.qkv = qkv, .cos = cos, .sin = cos, .rstd = rstd, .T = 2}};
  EXPECT_NE(error_of([&] {
              cuda::project_qkv(nullptr, a, workspace());
            }).find("bf16[4, 64] x bf16[384, 72]^T -> bf16[4, 384]"),
            std::string::npos);
  a.rope.T = 3;
  EXPECT_NE(error_of([&] { cuda::project_qkv(nullptr, a, workspace()); }).find("4 rows are not whole sequences of 3"),
            std::string::npos);
}

}  // namespace
}  // namespace assay
