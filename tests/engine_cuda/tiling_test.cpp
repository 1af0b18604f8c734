// Tilings of the memory-bound kernels: no candidate that is chosen by timing changes a bit; the fixed tiling follows
// the CPU twins; a run that chose gives the same losses again.
#include <gmock/gmock.h>

#include "cuda_support.h"
#include "engine/ops/cuda/cuda_ops.h"
#include "engine/ops/cuda/tune.h"
#include "engine/trainer/run_trainer.h"
#include "tests/engine/trainer_fixture.h"

namespace assay {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr DType bf = DType::bf16, f32 = DType::f32;

// The usual tiling with one knob at another candidate, every one in turn.
std::vector<cuda::Tiling> other_tilings(cuda::TunedKernel kernel) {
  std::vector<cuda::Tiling> tilings;
  for (const cuda::Knob& knob : cuda::knobs)
    if (knob.kernel == kernel)
      for (const int candidate : knob.candidates) tilings.emplace_back().*knob.value = candidate;
  return tilings;
}

// Runs an op once per tiling on fresh copies of its outputs and compares them with those of the usual tiling.
// op(outputs, tiling); `outputs`: what it reads and writes, or writes alone.
template <class Op>
void expect_same_bits(const std::string& what, cuda::TunedKernel kernel, const std::vector<Array>& outputs,
                      const Op& op) {
  std::vector<Array> want;
  std::vector<cuda::Tiling> tilings = other_tilings(kernel);
  ASSERT_GE(tilings.size(), 3u);
  tilings.insert(tilings.begin(), cuda::Tiling{});
  for (const cuda::Tiling& tiling : tilings) {
    const std::vector<Mirror> device(outputs.begin(), outputs.end());
    op(device, tiling);
    for (size_t i = 0; i < device.size(); ++i) {
      const Array got = device[i].back();
      if (want.size() < device.size())
        want.push_back(got);
      else
        expect_same(what + ", output " + std::to_string(i), got, want[i]);
    }
  }
}

Array positive(Random& random, std::initializer_list<int64_t> dims) {
  Array a(f32, dims);
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, random.uniform(0.5, 2));
  return a;
}

struct Shape {
  int64_t N, d;
};
const Shape shapes[] = {{1, 128}, {7, 768}, {131, 768}, {33, 1536}, {64, 1000}, {9, 4096}};

TEST(CudaTiling, NoCandidateChangesANorm) {
  ASSAY_NEEDS_GPU();
  Random random(70);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : {bf, f32}) {
      const std::string what = shape_text(dtype, {N, d});
      const int64_t k = 2, R = N * k + 5;
      const Mirror x_in(random_array(random, dtype, {N, d})), x0(random_array(random, dtype, {N, d})),
          resid(random_array(random, f32, {1})), skip(random_array(random, f32, {1})),
          y(random_array(random, dtype, {R, d})), shared(random_array(random, dtype, {N, d})),
          weights(random_array(random, f32, {N, k})), slot(random_integers(random, {N, k}, 0, R - 1));
      const Array n = poisoned(dtype, {N, d}), rstd = poisoned(f32, {N});
      const Fp8Array n8 = poisoned(fp8_array(DType::fp8_e4m3, ScaleMode::rowwise, N, d));
      for (bool add : {false, true})
        expect_same_bits("mix_norm " + what, cuda::TunedKernel::norm, {n, n, rstd, n8.codes, n8.scales},
                         [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                           MixNormArgs a{x_in,   x0,     resid,  skip,
                                         out[0], out[1], out[2], Quantized{out[3].t(), out[4].t(), ScaleMode::rowwise}};
                           if (add) a.add = {y, slot, weights, shared};
                           cuda::mix_norm(nullptr, a, tiling);
                         });
      const Mirror tokens(random_integers(random, {N}, 0, 40)), table(random_array(random, f32, {41, d}));
      expect_same_bits("embed_norm " + what, cuda::TunedKernel::norm, {n, rstd},
                       [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                         cuda::embed_norm(nullptr, {tokens, table, out[0], out[1]}, tiling);
                       });
    }
  }
}

TEST(CudaTiling, NoCandidateChangesTheRouting) {
  ASSAY_NEEDS_GPU();
  Random random(71);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : {bf, f32}) {
      if (dtype == f32 && d > 1536) continue;
      for (const auto& [E, k] : {std::pair<int64_t, int64_t>{8, 2}, {40, 3}}) {
        const Mirror x(random_array(random, dtype, {N, d})), w(random_array(random, f32, {E, d}, 0.05)),
            bias(random_array(random, f32, {E}, 0.1));
        const Fp8Array n8 = poisoned(fp8_array(DType::fp8_e4m3, ScaleMode::block_1x128, N, d));
        expect_same_bits(
            "norm_route " + shape_text(dtype, {N, d}) + " to " + std::to_string(E), cuda::TunedKernel::route,
            {poisoned(dtype, {N, d}), poisoned(f32, {N}), poisoned(DType::i32, {N, k}), poisoned(f32, {N, k}),
             poisoned(f32, {N, k}), poisoned(DType::i32, {E}), n8.codes, n8.scales},
            [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
              const Quantized codes{out[6].t(), out[7].t(), ScaleMode::block_1x128};
              cuda::norm_route(nullptr, {x, w, bias, out[0], out[1], codes, out[2], out[3], out[4], out[5]}, tiling);
            });
      }
    }
  }
}

TEST(CudaTiling, NoCandidateChangesTheRotation) {
  ASSAY_NEEDS_GPU();
  Random random(72);
  for (const int64_t D : {16, 32, 64, 128}) {
    for (DType dtype : {bf, f32}) {
      const int64_t T = 31, N = 3 * T, H = 5;
      const std::string what = shape_text(dtype, {N, 3, H, D});
      Array cos_values(f32, {T, D / 2}), sin_values(f32, {T, D / 2});
      rope_table(10000, cos_values, sin_values);
      const Mirror cos(cos_values), sin(sin_values), tokens(random_integers(random, {N}, 0, 19)),
          table(random_array(random, f32, {20, H * D})), n(random_array(random, dtype, {N, H * D})),
          gate_w(random_array(random, f32, {H, 12}, 0.3));
      const Array packed = random_array(random, dtype, {N, 3, H, D}), rstd = positive(random, {N, 2, H});
      expect_same_bits("qk_norm_rope " + what, cuda::TunedKernel::rope, {packed, poisoned(rstd)},
                       [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                         cuda::qk_norm_rope(nullptr, {out[0], cos, sin, out[1], T, tokens, table, n, gate_w}, tiling);
                       });
      const Mirror qkv(random_array(random, dtype, {N, 3, H, D})), qk_rstd(rstd);
      expect_same_bits("qk_norm_rope_grad " + what, cuda::TunedKernel::rope_grad,
                       {packed, Array(f32, {20, H * D}), Array(f32, {H, 12}), random_array(random, dtype, {N, H * D})},
                       [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                         cuda::qk_norm_rope_grad(
                             nullptr,
                             {out[0], qkv, cos, sin, qk_rstd, T, tokens, table, n, gate_w, out[1], out[2], out[3]},
                             workspace(), tiling);
                       });
    }
  }
}

// N tokens, k rows each at every third place of a buffer, in an order of its own; the rest is padding.
void spread_rows(int64_t N, int64_t k, Array& token_of, Array& slot) {
  token_of = Array(DType::i32, {3 * N * k}), slot = Array(DType::i32, {N, k});
  token_of.fill(-1);
  for (int64_t i = 0; i < N * k; ++i) {
    const int64_t r = 3 * ((i * 7) % (N * k)) + 1;
    slot.set(i, static_cast<double>(r));
    token_of.set(r, static_cast<double>(i / k));
  }
}

TEST(CudaTiling, NoCandidateChangesWhatIsMoved) {
  ASSAY_NEEDS_GPU();
  Random random(73);
  for (const int64_t N : {1, 50, 131}) {
    Array token_of_values, slot_values;
    spread_rows(N, 2, token_of_values, slot_values);
    const int64_t R = token_of_values.size(), d = 768;
    const Mirror token_of(token_of_values), slot(slot_values), gate(random_array(random, f32, {R}));
    const Fp8Mirror x8(random_fp8(random, DType::fp8_e4m3, ScaleMode::rowwise, N, d));
    const Fp8Array out8 = poisoned(fp8_array(DType::fp8_e4m3, ScaleMode::rowwise, R, d));
    for (const bool by_slots : {false, true}) {
      const Tensor places = by_slots ? slot.t() : Tensor{};
      const std::string what = std::to_string(N) + (by_slots ? " by slots" : " by rows");
      expect_same_bits("codes " + what, cuda::TunedKernel::permute, {out8.codes, out8.scales},
                       [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                         const Quantized to{out[0].t(), out[1].t(), ScaleMode::rowwise};
                         cuda::permute(nullptr, {.token_of = token_of, .x8 = x8, .out8 = to, .slot = places},
                                       workspace(), tiling);
                       });
      for (DType dtype : {bf, f32}) {
        const Mirror x(random_array(random, dtype, {N, d}));
        for (const bool gated : {false, true})
          expect_same_bits(what + (gated ? " gated" : ""), cuda::TunedKernel::permute, {poisoned(dtype, {R, d})},
                           [&](const std::vector<Mirror>& out, const cuda::Tiling& tiling) {
                             PermuteArgs a{.token_of = token_of, .x = x, .out = out[0], .slot = places};
                             if (gated) a.gate = gate;
                             cuda::permute(nullptr, a, workspace(), tiling);
                           });
      }
    }
  }
}

TEST(CudaTiling, TheFixedNormsFollowTheirTwins) {
  ASSAY_NEEDS_GPU();
  Random random(74);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : {bf, f32}) {
      const std::string what = shape_text(dtype, {N, d});
      const int64_t k = 3, R = N * k + 5;
      const Array x_in = random_array(random, dtype, {N, d}), x0 = random_array(random, dtype, {N, d}),
                  resid = random_array(random, f32, {1}), skip = random_array(random, f32, {1}),
                  y = random_array(random, dtype, {R, d}), shared = random_array(random, dtype, {N, d}),
                  weights = random_array(random, f32, {N, k}), slot = random_integers(random, {N, k}, 0, R - 1);
      Array x = poisoned(dtype, {N, d}), n = poisoned(dtype, {N, d}), rstd = poisoned(f32, {N});
      const Mirror mx_in(x_in), mx0(x0), mresid(resid), mskip(skip), my(y), mshared(shared), mweights(weights),
          mslot(slot), mx(x), mn(n), mrstd(rstd);
      cuda::mix_norm(nullptr, {mx_in, mx0, mresid, mskip, mx, mn, mrstd, {}, {my, mslot, mweights, mshared}},
                     cuda::fixed_tiling);
      cpu::mix_norm({x_in, x0, resid, skip, x, n, rstd, {}, {y, slot, weights, shared}});
      expect_same("x " + what, mx.back(), x);
      expect_close("n " + what, mn.back(), n);
      expect_close("rstd " + what, mrstd.back(), rstd);

      const Array tokens = random_integers(random, {N}, 0, 40), table = random_array(random, f32, {41, d});
      const Mirror mtokens(tokens), mtable(table), mout(poisoned(x)), mout_rstd(poisoned(rstd));
      cuda::embed_norm(nullptr, {mtokens, mtable, mout, mout_rstd}, cuda::fixed_tiling);
      cpu::embed_norm({tokens, table, x, rstd});
      expect_close("embedded x " + what, mout.back(), x);
      expect_close("embedded rstd " + what, mout_rstd.back(), rstd);

      const Array dx = random_array(random, dtype, {N, d});
      Array grad = random_array(random, f32, {41, d});
      const Mirror mdx(dx), mgrad(grad), mx_now(x), mrstd_now(rstd);
      cuda::embed_norm_grad(nullptr, {mtokens, mx_now, mrstd_now, mdx, mgrad}, workspace(), cuda::fixed_tiling);
      cpu::embed_norm_grad({tokens, x, rstd, dx, grad});
      expect_close("table_grad " + what, mgrad.back(), grad, 2e-5);
    }
  }
}

// With lambdas and without; in BF16 the kernel that writes FP8 codes stores the same bits as the plain one.
TEST(CudaTiling, TheFixedNormGradientsFollowTheirTwinAndEachOther) {
  ASSAY_NEEDS_GPU();
  Random random(75);
  for (const auto& [N, d] : shapes) {
    for (DType dtype : {bf, f32}) {
      for (bool mix : {false, true}) {
        const std::string what = shape_text(dtype, {N, d}) + (mix ? " with lambdas" : "");
        const Array dn = random_array(random, dtype, {N, d}), n = random_array(random, dtype, {N, d}),
                    x0 = random_array(random, dtype, {N, d}), rstd = positive(random, {N}),
                    resid = positive(random, {1}), skip = positive(random, {1});
        Array dx = random_array(random, dtype, {N, d}), dx0 = random_array(random, dtype, {N, d}), resid_grad(f32, {1}),
              skip_grad(f32, {1});
        const Mirror mdn(dn), mn(n), mx0(x0), mrstd(rstd), mresid(resid), mskip(skip);
        const Mirror mdx(dx), mdx0(dx0), mresid_grad(resid_grad), mskip_grad(skip_grad);
        const Mirror dx_8(dx), dx0_8(dx0), resid_grad_8(resid_grad), skip_grad_8(skip_grad);
        MixNormGradArgs host{.dn = dn, .n = n, .rstd = rstd, .dx = dx};
        MixNormGradArgs device{.dn = mdn, .n = mn, .rstd = mrstd, .dx = mdx};
        MixNormGradArgs coded{.dn = mdn, .n = mn, .rstd = mrstd, .dx = dx_8};
        if (mix) {
          host.x0 = x0, host.resid_lambda = resid, host.x0_lambda = skip, host.dx0 = dx0;
          host.resid_lambda_grad = resid_grad, host.x0_lambda_grad = skip_grad;
          for (MixNormGradArgs* a : {&device, &coded}) a->x0 = mx0, a->resid_lambda = mresid, a->x0_lambda = mskip;
          device.dx0 = mdx0, device.resid_lambda_grad = mresid_grad, device.x0_lambda_grad = mskip_grad;
          coded.dx0 = dx0_8, coded.resid_lambda_grad = resid_grad_8, coded.x0_lambda_grad = skip_grad_8;
        }
        cuda::mix_norm_grad(nullptr, device, workspace(), cuda::fixed_tiling);
        cpu::mix_norm_grad(host);
        expect_close("dx " + what, mdx.back(), dx);
        if (mix) {
          expect_close("dx0 " + what, mdx0.back(), dx0);
          const double size = std::sqrt(static_cast<double>(N * d));  // of a sum of N * d terms around 0
          EXPECT_NEAR(mresid_grad.back().get(0), resid_grad.get(0), 1e-5 * size) << what;
          EXPECT_NEAR(mskip_grad.back().get(0), skip_grad.get(0), 1e-5 * size) << what;
        }
        if (dtype != bf) continue;
        const Fp8Mirror codes(poisoned(fp8_array(DType::fp8_e5m2, ScaleMode::tensorwise, N, d))),
            codes_t(poisoned(fp8_array(DType::fp8_e5m2, ScaleMode::tensorwise, d, N)));
        const Mirror scale(positive(random, {2}));
        coded.dx8 = codes, coded.dx8t = codes_t;
        coded.dx8_scale = {scale.t().as<float>(), scale.t().as<float>() + 1};
        cuda::mix_norm_grad(nullptr, coded, workspace(), cuda::fixed_tiling);
        expect_same("dx beside codes " + what, dx_8.back(), mdx.back());
        if (!mix) continue;
        expect_same("dx0 beside codes " + what, dx0_8.back(), mdx0.back());
        expect_same("resid_lambda_grad beside codes " + what, resid_grad_8.back(), mresid_grad.back());
        expect_same("x0_lambda_grad beside codes " + what, skip_grad_8.back(), mskip_grad.back());
      }
    }
  }
}

TEST(CudaTiling, TheFixedEndOfAnExpertBlockFollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(76);
  const int64_t N = 65, E = 8, k = 2, R = N * k + 9;
  for (const int64_t d : {768, 1000, 1536, 4096}) {
    for (DType dtype : {bf, f32}) {
      const Array dxg = random_array(random, dtype, {R, d}), slot = random_integers(random, {N, k}, 0, R - 1),
                  shared = random_array(random, dtype, {N, d}), gate_grad = random_array(random, f32, {R}),
                  weights = random_array(random, f32, {N, k}), n = random_array(random, dtype, {N, d}),
                  rstd = positive(random, {N}), w = random_array(random, f32, {E, d});
      Array picks(DType::i32, {N, k}), probs(f32, {N, k});
      for (int64_t t = 0; t < N; ++t) {
        const int64_t first = random.integer(0, E - 1);
        picks.set(t * k, static_cast<double>(first)), picks.set(t * k + 1, static_cast<double>((first + 1) % E));
        probs.set(t * k, random.uniform(0.05, 0.95)), probs.set(t * k + 1, random.uniform(0.05, 0.95));
      }
      Array dw = random_array(random, f32, {E, d}), dx = random_array(random, dtype, {N, d});
      const Mirror mdxg(dxg), mslot(slot), mshared(shared), mgate_grad(gate_grad), mpicks(picks), mprobs(probs),
          mweights(weights), mn(n), mrstd(rstd), mw(w), mdw(dw), mdx(dx);
      cuda::moe_norm_grad(nullptr,
                          {mdxg, mslot, mshared, mgate_grad, mpicks, mprobs, mweights, mn, mrstd, mw, mdw, mdx},
                          workspace(), cuda::fixed_tiling);
      cpu::moe_norm_grad({dxg, slot, shared, gate_grad, picks, probs, weights, n, rstd, w, dw, dx});
      expect_close("dx " + shape_text(dtype, {N, d}), mdx.back(), dx);
      expect_close("router_w_grad " + shape_text(dtype, {N, d}), mdw.back(), dw, 1e-5);
    }
  }
}

// The fixed tiling of rows that one warp works on is another block, or other rows a warp: the same bits.
TEST(CudaTiling, TheFixedRowsOfAWarpHaveTheBitsOfTheUsualOnes) {
  ASSAY_NEEDS_GPU();
  Random random(77);
  const int64_t N = 70, d = 768, E = 8, k = 2, T = 35, H = 6, D = 128;
  const Mirror x(random_array(random, bf, {N, d})), w(random_array(random, f32, {E, d}, 0.05)), bias(Array(f32, {E}));
  Array cos_values(f32, {T, D / 2}), sin_values(f32, {T, D / 2});
  rope_table(10000, cos_values, sin_values);
  const Mirror cos(cos_values), sin(sin_values);
  const Array packed = random_array(random, bf, {N, 3, H, D});
  std::vector<Array> want;
  for (const cuda::Tiling& tiling : {cuda::Tiling{}, cuda::fixed_tiling}) {
    const Mirror n(poisoned(bf, {N, d})), rstd(poisoned(f32, {N})), picks(poisoned(DType::i32, {N, k})),
        probs(poisoned(f32, {N, k})), weights(poisoned(f32, {N, k})), counts(poisoned(DType::i32, {E})), qkv(packed),
        qk_rstd(poisoned(f32, {N, 2, H}));
    cuda::norm_route(nullptr, {x, w, bias, n, rstd, {}, picks, probs, weights, counts}, tiling);
    cuda::qk_norm_rope(nullptr, {.qkv = qkv, .cos = cos, .sin = sin, .rstd = qk_rstd, .T = T}, tiling);
    std::vector<Array> got;
    for (const Mirror* m : {&n, &rstd, &picks, &probs, &weights, &counts, &qkv, &qk_rstd}) got.push_back(m->back());
    if (want.empty()) want = got;
    for (size_t i = 0; i < got.size(); ++i) expect_same("output " + std::to_string(i), got[i], want[i]);
  }
}

TEST(CudaTiling, TheLineForTheLogSaysWhatWasTakenAndWhatItTook) {
  EXPECT_EQ(cuda::describe({{&cuda::knobs[0], {240, 232, 251}}, {&cuda::knobs[1], {99, 131, 120}}}),
            "tiling: norm 2 warps a block (232 us of 232..251), route the usual rows a warp (99 us of 99..131)");
  EXPECT_EQ(cuda::describe({}), "tiling: by width alone, there is no memory to time kernels in");
}

TEST(CudaTiling, MeasuresWhatTheRunUsesInTheMemoryItIsGiven) {
  ASSAY_NEEDS_GPU();
  TilingRequest request{
      .tokens = 3000, .T = 1000, .d = 256, .heads = 2, .head_dim = 128, .experts = 4, .top_k = 2, .bytes = 40 << 20};
  void* memory = nullptr;
  cuda_ok(cudaMalloc(&memory, request.bytes), "cudaMalloc");
  const std::unique_ptr<void, cudaError_t (*)(void*)> owner(memory, cudaFree);
  request.memory = memory;
  const auto all = cuda::time_tilings(nullptr, request, workspace());
  EXPECT_EQ(all.size(), std::size(cuda::knobs));
  for (const cuda::KnobTimes& k : all)
    for (const double us : k.us) EXPECT_TRUE(us > 0 && us < 1e5) << k.knob->name << " " << us << " us";
  request.routed_codes = request.gradient_codes = true;
  EXPECT_EQ(cuda::time_tilings(nullptr, request, workspace()).size(), std::size(cuda::knobs) - 1);
  request.bytes = 1000;
  EXPECT_EQ(cuda::time_tilings(nullptr, request, workspace()).size(), 0u);
}

// ---------------------------------------------------------------------------------------------------------- small runs

struct Trained {
  std::vector<double> losses;
  std::vector<std::string> notes;
};

Trained train(const std::string& data, bool coalesce_tiling, Precision precision) {
  RunConfig c = preset_config(Preset::nanochat);  // with lambdas
  c.backend = Backend::cuda;
  c.precision = precision;
  c.coalesce_tiling = coalesce_tiling;
  c.model.depth = 2;
  c.model.d_model = 256;
  c.model.head_dim = 64;
  c.model.experts = 4;
  c.model.vocab_size = 512;
  c.model.sequence_len = 256;
  c.train.device_batch = 3;
  c.train.total_batch_tokens = 768;
  c.train.steps = 12;
  c.data.path = data;
  RunTrainer trainer(c, {}, Backend::cuda, make_cuda_ops({.coalesce_tiling = coalesce_tiling}), 0, 1);
  Trained t;
  while (trainer.next_step() < c.train.steps)
    t.losses.push_back(trainer.step(trainer.next_step() + 1 < c.train.steps).loss);
  t.notes = trainer.notes();
  return t;
}

TEST(CudaTiling, ARunThatChoosesAgainGivesTheSameLossesAndTheFixedOneNearlyThose) {
  ASSAY_NEEDS_GPU();
  testing::TemporaryFolder data;
  testing::write_shards(data.path(), testing::random_corpus(40000, 512, "train"),
                        testing::random_corpus(4000, 512, "val"));
  for (const Precision precision : {Precision::bf16, Precision::fp8_experts}) {
    const Trained on = train(data.path(), true, precision), off = train(data.path(), false, precision);
    EXPECT_EQ(on.losses, train(data.path(), true, precision).losses) << to_string(precision);
    EXPECT_EQ(off.losses, train(data.path(), false, precision).losses) << to_string(precision);
    for (size_t i = 0; i < on.losses.size(); ++i)
      EXPECT_NEAR(off.losses[i], on.losses[i], 0.01 * on.losses[i]) << to_string(precision) << " step " << i;
    EXPECT_THAT(on.notes, Contains(AllOf(StartsWith("tiling: norm "), HasSubstr("permute "), HasSubstr(" us of "))));
    EXPECT_THAT(off.notes, Contains("tiling: fixed, blocks of 128 threads for every shape"));
  }
}

}  // namespace
}  // namespace assay
