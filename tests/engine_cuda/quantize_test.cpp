#include <array>

#include "cuda_support.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t G, R, K;
};
const Shape shapes[] = {{1, 1, 8},     {1, 128, 128}, {1, 129, 256}, {3, 100, 136},
                        {1, 300, 768}, {2, 257, 400}, {1, 64, 6000}};
const ScaleMode modes[] = {ScaleMode::tensorwise, ScaleMode::rowwise, ScaleMode::block_1x128, ScaleMode::block_128x128};

// Values over many binades, with a row of zeros, an infinity in some runs, and zeros in a whole block.
Array values(Random& random, DType dtype, const Shape& s, bool infinity) {
  Array x = random_array(random, dtype, {s.G, s.R, s.K});
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.get(i) * std::exp2(random.uniform(-8, 8)));
  if (s.R > 1)
    for (int64_t j = 0; j < s.K; ++j) x.set(j, 0);
  if (infinity) x.set(x.size() / 2, std::numeric_limits<double>::infinity());
  return x;
}

TEST(CudaQuantize, IsItsTwinBitForBitInEveryModeAndOrientation) {
  ASSAY_NEEDS_GPU();
  Random random(40);
  for (const Shape& s : shapes) {
    for (ScaleMode mode : modes) {
      for (int parts = 1; parts < 4; ++parts) {  // bit 0: out, bit 1: transposed
        for (float static_scale : {0.0f, 0.037f}) {
          const DType dtype = random.integer(0, 1) == 0 ? DType::bf16 : DType::f32;
          const DType format = random.integer(0, 1) == 0 ? DType::fp8_e4m3 : DType::fp8_e5m2;
          const ScaleMode other = modes[random.integer(0, 3)];
          const std::string what = std::string(to_string(mode)) + "/" + to_string(other) + " " +
                                   shape_text(dtype, {s.G, s.R, s.K}) + " parts " + std::to_string(parts) + " static " +
                                   std::to_string(static_scale);
          const Array x = values(random, dtype, s, random.integer(0, 4) == 0);
          const ScaleMode mode_t = parts == 2 ? mode : other;
          Fp8Array out = fp8_stack(format, mode, s.G, s.R, s.K);
          Fp8Array turned = fp8_stack(DType::fp8_e4m3, mode_t, s.G, s.K, s.R);
          const Mirror mx(x);
          const Fp8Mirror mout(poisoned(out)), mturned(poisoned(turned));
          QuantizeArgs on_device{.x = mx, .static_scale = static_scale}, on_host{.x = x, .static_scale = static_scale};
          if ((parts & 1) != 0) on_device.out = mout, on_host.out = out;
          if ((parts & 2) != 0) on_device.transposed = mturned, on_host.transposed = turned;
          cuda::quantize(nullptr, on_device, workspace());
          cpu::quantize(on_host);
          if ((parts & 1) != 0) expect_same("out " + what, mout.back(), out);
          if ((parts & 2) != 0) expect_same("transposed " + what, mturned.back(), turned);
        }
      }
    }
  }
}

TEST(CudaQuantize, DelayedScalesFollowTheTwin) {
  ASSAY_NEEDS_GPU();
  Random random(41);
  for (float scale : {0.0f, 0.02f}) {
    for (float old_amax : {0.0f, 1e6f}) {
      for (bool both : {false, true}) {
        const Array x = values(random, DType::bf16, {1, 200, 392}, false);
        Array x2(DType::bf16, {200, 392});
        for (int64_t i = 0; i < x.size(); ++i) x2.set(i, x.get(i));
        Array state(DType::f32, {2});
        state.set(0, scale), state.set(1, old_amax);
        Fp8Array out = fp8_array(DType::fp8_e5m2, ScaleMode::tensorwise, 200, 392);
        Fp8Array turned = fp8_array(DType::fp8_e5m2, ScaleMode::tensorwise, 392, 200);
        const Mirror mx(x2), mstate(state);
        const Fp8Mirror mout(poisoned(out)), mturned(poisoned(turned));
        float* on = mstate.t().as<float>();
        float* host = state.t().as<float>();
        QuantizeArgs on_device{.x = mx, .out = mout, .delayed = {on, on + 1}};
        QuantizeArgs on_host{.x = x2, .out = out, .delayed = {host, host + 1}};
        if (both) on_device.transposed = mturned, on_host.transposed = turned;
        cuda::quantize(nullptr, on_device, workspace());
        cpu::quantize(on_host);
        expect_same("out", mout.back(), out);
        if (both) expect_same("transposed", mturned.back(), turned);
        expect_same("scale and amax", mstate.back(), state);
      }
    }
  }
}

TEST(CudaScaleUpdate, IsItsTwinBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(42);
  const int64_t n = 300;
  Array scale = random_array(random, DType::f32, {n}), amax = random_array(random, DType::f32, {n});
  Array format_max(DType::f32, {n});
  for (int64_t i = 0; i < n; ++i) amax.set(i, std::max(0.0, amax.get(i))), format_max.set(i, i % 2 == 0 ? 448 : 57344);
  const Mirror mscale(scale), mamax(amax), mmax(format_max);
  cuda::scale_update(nullptr, {mscale.t().as<float>(), mamax.t().as<float>(), mmax.t().as<float>(), n, 2.0f});
  cpu::scale_update({scale.t().as<float>(), amax.t().as<float>(), format_max.t().as<float>(), n, 2.0f});
  expect_same("scale", mscale.back(), scale);
  expect_same("amax", mamax.back(), amax);
}

}  // namespace
}  // namespace assay
