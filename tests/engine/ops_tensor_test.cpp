// Tensor views, the math that the twins share, host memory and the messages of broken contracts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/ops/cpu/vector_math.h"
#include "ops_support.h"

#ifdef __SANITIZE_ADDRESS__
// A refused allocation must return null here too, as it does without the sanitizer.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}
#endif

namespace assay {
namespace {

using test::Array;
using test::error_of;
using testing::HasSubstr;

TEST(TensorView, SlicesAndReshapesTheSameMemory) {
  Array a(DType::bf16, {4, 2, 3});
  for (int64_t i = 0; i < a.size(); ++i) a.set(i, static_cast<double>(i));
  const Tensor part = a.t().slice(1, 2);
  EXPECT_EQ(part.describe(), "bf16[2, 2, 3]");
  EXPECT_EQ(bf16_to_float(part.as<uint16_t>()[0]), 6.0f);
  const Tensor flat = part.view({12});
  EXPECT_EQ(flat.describe(), "bf16[12]");
  EXPECT_EQ(flat.data, part.data);
  EXPECT_EQ(a.t().slice(4, 0).numel(), 0);
}

TEST(TensorView, RefusesWhatDoesNotFit) {
  Array a(DType::f32, {4, 3});
  EXPECT_THAT(error_of([&] { a.t().slice(3, 2); }), HasSubstr("[3, +2) is outside f32[4, 3]"));
  EXPECT_THAT(error_of([&] { a.t().view({5, 2}); }), HasSubstr("f32[4, 3] cannot be seen as f32[5, 2]"));
}

TEST(TensorView, SlicesAStackOfQuantizedMatrices) {
  test::Fp8Array stack = test::fp8_stack(DType::fp8_e4m3, ScaleMode::block_128x128, 3, 130, 200);
  const Quantized one = stack.q().slice(2);
  EXPECT_EQ(one.codes.describe(), "fp8_e4m3[130, 200]");
  EXPECT_EQ(one.scales.describe(), "f32[2, 2]");
  EXPECT_EQ(one.codes.as<uint8_t>() - stack.codes.t().as<uint8_t>(), 2 * 130 * 200);
  EXPECT_EQ(one.scales.as<float>() - stack.scales.t().as<float>(), 8);
}

TEST(Contract, MessageNamesTheOpTheTensorAndThePlace) {
  Array a(DType::f32, {4, 3}), b(DType::f32, {5, 3}), out(DType::f32, {4, 4});
  GemmArgs args{a, b, false, true, out};
  const std::string message = error_of([&] { make_cpu_ops()->gemm(args); });
  EXPECT_THAT(message, HasSubstr("gemm: out is f32[4, 4], expected f32[4, 5]"));
  EXPECT_THAT(message, HasSubstr("engine/ops/cpu/"));
  try {
    make_cpu_ops()->gemm(args);
  } catch (const EngineError& error) {
    EXPECT_EQ(error.operation, "gemm");
  }
}

TEST(Contract, TokensAndTargetsOutsideTheVocabularyAreRefused) {
  Array tokens(DType::i32, {2}), table(DType::f32, {3, 4}), x(DType::f32, {2, 4}), rstd(DType::f32, {2});
  tokens.set(1, 3);
  EXPECT_THAT(error_of([&] {
                cpu::embed_norm({tokens, table, x, rstd});
              }),
              HasSubstr("token 3 at row 1 is outside the vocabulary of 3"));
  Array loss(DType::f32, {2}), logits(DType::f32, {2, 3});
  EXPECT_THAT(error_of([&] {
                cpu::softcap_xent({logits, tokens, loss});
              }),
              HasSubstr("target 3 at row 1 is outside the vocabulary of 3"));
}

TEST(CpuMemory, IsAlignedAndCopiesBothWays) {
  const auto ops = make_cpu_ops();
  void* memory = ops->allocate(1000, "test");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 256, 0u);
  const int sent[2] = {3, 4};
  int received[2] = {};
  ops->copy_to_device(memory, sent, sizeof(sent));
  ops->copy_to_host(received, memory, sizeof(sent));
  EXPECT_EQ(received[1], 4);
  ops->release(memory);
  void* nothing = ops->allocate(0, "empty");
  EXPECT_NE(nothing, nullptr);
  ops->release(nothing);
}

TEST(CpuMemory, TooMuchIsAnOutOfMemoryErrorThatNamesItsUse) {
  try {
    make_cpu_ops()->allocate(size_t{1} << 62, "the arena");
    FAIL() << "allocated 4 EiB";
  } catch (const EngineError& error) {
    EXPECT_EQ(error.reason, FailureReason::out_of_memory);
    EXPECT_THAT(error.what(), HasSubstr("no host memory for the arena: 4611686018427387904 bytes"));
    EXPECT_EQ(error.tensor, "the arena");
  }
}

TEST(VectorMath, ExpAndTanhAreAccurateOverTheirRange) {
  for (double x = -86; x < 88.7; x += 0.0037) {
    const float f = static_cast<float>(x);
    EXPECT_NEAR(cpu::exp_fast(f) / std::exp(static_cast<double>(f)), 1.0, 3e-7) << f;
  }
  for (double x = -12; x < 12; x += 0.0013) {
    const float f = static_cast<float>(x);
    EXPECT_NEAR(cpu::tanh_fast(f), std::tanh(static_cast<double>(f)), 2e-7 * std::fabs(std::tanh(x)) + 1e-30) << f;
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(cpu::exp_fast(0.0f), 1.0f);
  EXPECT_EQ(cpu::exp_fast(100.0f), infinity);
  EXPECT_EQ(cpu::exp_fast(-infinity), 0.0f);
  EXPECT_TRUE(std::isnan(cpu::exp_fast(std::nanf(""))));
  EXPECT_EQ(cpu::tanh_fast(infinity), 1.0f);
  EXPECT_EQ(cpu::tanh_fast(-infinity), -1.0f);
  EXPECT_TRUE(std::isnan(cpu::tanh_fast(std::nanf(""))));
}

}  // namespace
}  // namespace assay
