#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t N, R, d;
};
const Shape shapes[] = {{1, 1, 8}, {50, 129, 768}, {33, 127, 1536}, {7, 300, 128}, {20, 64, 1000}};

TEST(CudaPermute, MovesRowsBitForBitWithAndWithoutGate) {
  ASSAY_NEEDS_GPU();
  Random random(30);
  for (const auto& [N, R, d] : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (bool gated : {false, true}) {
        const Array token_of = random_integers(random, {R}, -1, N - 1), x = random_array(random, dtype, {N, d});
        const Array gate = random_array(random, DType::f32, {R});
        Array out = poisoned(dtype, {R, d});
        const Mirror mtoken_of(token_of), mx(x), mgate(gate), mout(out);
        PermuteArgs on_device{.token_of = mtoken_of, .x = mx, .out = mout};
        PermuteArgs on_host{.token_of = token_of, .x = x, .out = out};
        if (gated) on_device.gate = mgate, on_host.gate = gate;
        cuda::permute(nullptr, on_device, workspace());
        cpu::permute(on_host);
        expect_same(shape_text(dtype, {R, d}) + (gated ? " gated" : ""), mout.back(), out);
      }
    }
  }
}

TEST(CudaPermute, MovesCodesAndScalesAsTheyAre) {
  ASSAY_NEEDS_GPU();
  Random random(31);
  for (ScaleMode mode : {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128}) {
    for (int64_t K : {16, 768, 208}) {
      const int64_t N = 40, R = 131;
      const Fp8Array x = random_fp8(random, DType::fp8_e5m2, mode, N, K);
      const Array token_of = random_integers(random, {R}, -1, N - 1);
      Fp8Array want = fp8_array(DType::fp8_e5m2, mode, R, K);
      const Fp8Mirror mx(x), out(poisoned(want));
      const Mirror mtoken_of(token_of);
      cuda::permute(nullptr, {.token_of = mtoken_of, .x8 = mx, .out8 = out}, workspace());
      cpu::permute({.token_of = token_of, .x8 = x, .out8 = want});
      expect_same(std::string(to_string(mode)) + " K " + std::to_string(K), out.back(), want);
    }
  }
}

// A consistent token_of and slot: N tokens, k rows each, in random places of a buffer with padding.
void random_places(Random& random, int64_t N, int64_t k, int64_t R, Array& token_of, Array& slot) {
  std::vector<int64_t> rows(static_cast<size_t>(R));
  for (int64_t r = 0; r < R; ++r) rows[static_cast<size_t>(r)] = r;
  for (int64_t r = R - 1; r > 0; --r)
    std::swap(rows[static_cast<size_t>(r)], rows[static_cast<size_t>(random.integer(0, r))]);
  token_of = Array(DType::i32, {R}), slot = Array(DType::i32, {N, k});
  token_of.fill(-1);
  for (int64_t i = 0; i < N * k; ++i) {
    slot.set(i, static_cast<double>(rows[static_cast<size_t>(i)]));
    token_of.set(rows[static_cast<size_t>(i)], static_cast<double>(i / k));
  }
}

TEST(CudaPermute, BySlotsGivesTheSame) {
  ASSAY_NEEDS_GPU();
  Random random(35);
  for (int64_t k : {1, 2, 3}) {
    for (int64_t N : {1, 70}) {
      const int64_t R = N * k + random.integer(0, 90), d = 768;
      Array token_of, slot;
      random_places(random, N, k, R, token_of, slot);
      const Array gate = random_array(random, DType::f32, {R});
      const Mirror mtoken_of(token_of), mslot(slot), mgate(gate);
      const std::string what = std::to_string(N) + " x " + std::to_string(k) + " to " + std::to_string(R);
      for (DType dtype : {DType::bf16, DType::f32}) {
        const Array x = random_array(random, dtype, {N, d});
        Array out(dtype, {R, d}), gated(dtype, {R, d});
        const Mirror mx(x), mout(poisoned(out)), mgated(poisoned(gated));
        cuda::permute(nullptr, {.token_of = mtoken_of, .x = mx, .out = mout, .slot = mslot}, workspace());
        cuda::permute(nullptr, {.token_of = mtoken_of, .x = mx, .out = mgated, .gate = mgate, .slot = mslot},
                      workspace());
        cpu::permute({.token_of = token_of, .x = x, .out = out});
        cpu::permute({.token_of = token_of, .x = x, .out = gated, .gate = gate});
        expect_same(what, mout.back(), out);
        expect_same("gated " + what, mgated.back(), gated);
      }
      const Fp8Array x8 = random_fp8(random, DType::fp8_e4m3, ScaleMode::block_1x128, N, d);
      Fp8Array out8 = fp8_array(DType::fp8_e4m3, ScaleMode::block_1x128, R, d);
      const Fp8Mirror mx8(x8), mout8(poisoned(out8));
      cuda::permute(nullptr, {.token_of = mtoken_of, .x8 = mx8, .out8 = mout8, .slot = mslot}, workspace());
      cpu::permute({.token_of = token_of, .x8 = x8, .out8 = out8});
      expect_same("fp8 " + what, mout8.back(), out8);
    }
  }
}

TEST(CudaPermute, QuantisesRowsAndTheirTransposeBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(36);
  const Shape rows[] = {{1, 16, 16}, {50, 128, 768}, {300, 400, 1536}, {7, 304, 128}, {20, 64, 1008}};
  for (const auto& [N, R, d] : rows) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (DType format : {DType::fp8_e4m3, DType::fp8_e5m2}) {
        for (int parts = 1; parts < 8; ++parts) {  // bit 0: out8, bit 1: out8t, bit 2: gate
          if (parts == 4) continue;
          const Array token_of = random_integers(random, {R}, -1, N - 1), gate = random_array(random, DType::f32, {R});
          Array x = random_array(random, dtype, {N, d}), scale(DType::f32, {1});
          x.set(0, 1e30);  // saturates
          scale.set(0, random.uniform(0.001, 0.1));
          Fp8Array out = poisoned(fp8_array(format, ScaleMode::tensorwise, R, d)),
                   out_t = poisoned(fp8_array(format, ScaleMode::tensorwise, d, R));
          const Mirror mtoken_of(token_of), mgate(gate), mx(x), mscale(scale);
          const Fp8Mirror mout(out), mout_t(out_t);
          PermuteArgs host{.token_of = token_of, .x = x, .scale = scale},
              device{.token_of = mtoken_of, .x = mx, .scale = mscale};
          if ((parts & 1) != 0) host.out8 = out, device.out8 = mout;
          if ((parts & 2) != 0) host.out8t = out_t, device.out8t = mout_t;
          if ((parts & 4) != 0) host.gate = gate, device.gate = mgate;
          cuda::permute(nullptr, device, workspace());
          cpu::permute(host);
          const std::string what =
              shape_text(dtype, {R, d}) + " to " + to_string(format) + ", parts " + std::to_string(parts);
          expect_same("out8 " + what, mout.back(), out);
          expect_same("out8t " + what, mout_t.back(), out_t);
        }
      }
    }
  }
}

TEST(CudaPermute, RefusesAGateOnCodesAndOddRows) {
  ASSAY_NEEDS_GPU();
  Random random(32);
  const Mirror token_of(Array(DType::i32, {4})), x(Array(DType::bf16, {4, 16})), gate(Array(DType::f32, {4}));
  const Fp8Mirror x8(random_fp8(random, DType::fp8_e4m3, ScaleMode::rowwise, 4, 16));
  EXPECT_NE(error_of([&] {
              cuda::permute(nullptr, {.token_of = token_of, .x8 = x8, .out8 = x8, .gate = gate}, workspace());
            }).find("codes are moved as they are"),
            std::string::npos);
  const Mirror odd(Array(DType::bf16, {4, 12}));
  EXPECT_NE(error_of([&] {
              cuda::permute(nullptr, {.token_of = token_of, .x = odd, .out = odd}, workspace());
            }).find("bf16[4, 12] are not whole 16-byte vectors"),
            std::string::npos);
  // 4 rows of padding make columns of 4 codes.
  const Mirror x16(Array(DType::bf16, {4, 16})), scale(Array(DType::f32, {1}));
  const Fp8Mirror narrow(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 16, 4));
  EXPECT_NE(error_of([&] {
              cuda::permute(nullptr, {.token_of = token_of, .x = x16, .out8t = narrow, .scale = scale}, workspace());
            }).find("out8t fp8_e4m3[16, 4] has rows that are not whole 16-byte vectors"),
            std::string::npos);
}

TEST(CudaCombine, IsItsTwinBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(33);
  for (const auto& [N, R, d] : shapes) {
    for (DType dtype : {DType::bf16, DType::f32}) {
      for (int64_t k : {1, 2, 3, 4, 8}) {
        for (int parts = 0; parts < 8; ++parts) {  // bit 0: weights, bit 1: shared, bit 2: residual in place
          const Array y = random_array(random, dtype, {R, d}), slot = random_integers(random, {N, k}, 0, R - 1);
          const Array weights = random_array(random, DType::f32, {N, k}), shared = random_array(random, dtype, {N, d});
          Array out = random_array(random, dtype, {N, d});
          const Mirror my(y), mslot(slot), mweights(weights), mshared(shared), mout(out);
          CombineArgs on_device{.y = my, .slot = mslot, .out = mout}, on_host{.y = y, .slot = slot, .out = out};
          if ((parts & 1) != 0) on_device.weights = mweights, on_host.weights = weights;
          if ((parts & 2) != 0) on_device.shared = mshared, on_host.shared = shared;
          if ((parts & 4) != 0) on_device.residual = mout, on_host.residual = out;
          cuda::combine(nullptr, on_device);
          cpu::combine(on_host);
          expect_same(shape_text(dtype, {N, d}) + " k " + std::to_string(k) + " parts " + std::to_string(parts),
                      mout.back(), out);
        }
      }
    }
  }
}

}  // namespace
}  // namespace assay
