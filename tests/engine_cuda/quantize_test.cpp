#include <gmock/gmock.h>

#include <array>
#include <optional>

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

// What a weight becomes, on both sides; the device's outputs begin as garbage.
struct Prepared {
  Array x, copy;
  Fp8Array out, turned;
  Mirror mx, mcopy;
  std::optional<Fp8Mirror> mout, mturned;  // empty: not asked for
};

enum class Form { codes, copy, other };  // other: what no table takes

Prepared random_weight(Random& random, Form form, const Shape& s) {
  Prepared w;
  w.x = values(random, DType::f32, s, random.integer(0, 9) == 0);
  const int64_t zeros = random.integer(0, 4) == 0 ? random.integer(1, s.G) * s.R * s.K : 0;  // whole matrices
  for (int64_t i = 0; i < zeros; ++i) w.x.set(i, 0);
  w.mx = Mirror(w.x);
  if (form == Form::copy || (form == Form::other && random.integer(0, 1) == 0)) {
    w.copy = Array(form == Form::copy ? DType::bf16 : DType::f32, {s.G, s.R, s.K});
    w.mcopy = Mirror(poisoned(w.copy));
    return w;
  }
  const ScaleMode mode = form == Form::codes ? ScaleMode::tensorwise : modes[random.integer(1, 3)];
  w.out = fp8_stack(DType::fp8_e4m3, mode, s.G, s.R, s.K);
  w.mout.emplace(poisoned(w.out));
  if (form == Form::other && random.integer(0, 1) == 0) return w;
  w.turned = fp8_stack(DType::fp8_e4m3, mode, s.G, s.K, s.R);
  w.mturned.emplace(poisoned(w.turned));
  return w;
}

void expect_prepared_as_by_twin(const std::string& what, const std::vector<Prepared>& weights) {
  PrepareWeightsArgs on_device, on_host;
  for (const Prepared& w : weights) {
    on_device.weights.push_back({.x = w.mx, .out = {}, .transposed = {}, .copy = w.mcopy});
    on_host.weights.push_back({.x = w.x, .out = {}, .transposed = {}, .copy = w.copy});
    if (w.mout) on_device.weights.back().out = *w.mout, on_host.weights.back().out = w.out;
    if (w.mturned) on_device.weights.back().transposed = *w.mturned, on_host.weights.back().transposed = w.turned;
  }
  cuda::prepare_weights(nullptr, on_device, workspace());
  cpu::prepare_weights(on_host);
  for (size_t i = 0; i < weights.size(); ++i) {
    const Prepared& w = weights[i];
    const std::string which = what + ", weight " + std::to_string(i) + " " + w.x.t().describe();
    if (w.mout) expect_same(which + " out", w.mout->back(), w.out);
    if (w.mturned) expect_same(which + " transposed", w.mturned->back(), w.turned);
    if (w.copy.t()) expect_same(which + " copy", w.mcopy.back(), w.copy);
  }
}

TEST(CudaPrepareWeights, IsItsTwinBitForBitForEveryNumberOfWeights) {
  ASSAY_NEEDS_GPU();
  Random random(43);
  for (int count : {1, 2, 72, 73, 200}) {  // a launch takes 72 weights
    for (Form form : {Form::codes, Form::copy}) {
      std::vector<Prepared> weights;
      for (int i = 0; i < count; ++i)
        weights.push_back(random_weight(
            random, form,
            {random.integer(1, 3), random.integer(1, 300), 8 * random.integer(1, count == 200 ? 8 : 50)}));
      expect_prepared_as_by_twin(std::to_string(count) + (form == Form::codes ? " to codes" : " copied"), weights);
    }
  }
}

TEST(CudaPrepareWeights, TakesEveryFormInOneCall) {
  ASSAY_NEEDS_GPU();
  Random random(44);
  for (int round = 0; round < 3; ++round) {
    std::vector<Prepared> weights;
    for (const Shape& s : shapes)
      for (Form form : {Form::codes, Form::copy, Form::other, Form::codes})
        weights.push_back(random_weight(random, form, s));
    weights.push_back(random_weight(random, Form::codes, {8, 1024, 768}));
    weights.push_back(random_weight(random, Form::copy, {1, 7, 9}));  // fills no vector
    expect_prepared_as_by_twin("round " + std::to_string(round), weights);
  }
}

TEST(CudaPrepareWeights, RefusesRowsThatAreNoWholeVectors) {
  ASSAY_NEEDS_GPU();
  Random random(45);
  const Mirror x(random_array(random, DType::f32, {16, 12}));
  const Fp8Mirror out(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 16, 12));
  const Fp8Mirror turned(fp8_array(DType::fp8_e4m3, ScaleMode::tensorwise, 12, 16));
  PrepareWeightsArgs args;
  args.weights.push_back({.x = x, .out = out, .transposed = turned, .copy = {}});
  EXPECT_THAT(error_of([&] { cuda::prepare_weights(nullptr, args, workspace()); }),
              ::testing::HasSubstr("x is f32[16, 12]; on CUDA rows are whole 16-byte vectors"));
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
