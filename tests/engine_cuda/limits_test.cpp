// The ops refuse what is beyond the backend's limits in the words of the plan, and take what is within. Nothing here
// touches a device: every call is refused, the ones at the limit by a later check.
#include <gmock/gmock.h>

#include <functional>

#include "cuda_support.h"
#include "engine/ops/cuda/cudnn_attention.h"
#include "engine/ops/cuda/gemm.h"
#include "engine/ops/cuda/muon.h"
#include "engine/ops/cuda/rope_grad_fp8.h"

namespace assay::test {
namespace {

using cuda::Workspace;
using ::testing::HasSubstr;
using ::testing::Not;

alignas(16) char memory[16];  // nobody reads it
Tensor tensor(DType dtype, std::initializer_list<int64_t> dims) {
  return {memory, dtype, dims};
}
Quantized codes(int64_t matrices, int64_t rows, int64_t columns) {
  return {tensor(DType::fp8_e4m3, {matrices, rows, columns}), tensor(DType::f32, {matrices}), ScaleMode::tensorwise};
}

std::string message_of(const std::function<void()>& op) {
  try {
    op();
  } catch (const EngineError& error) {
    return error.what();
  }
  return "nothing was refused";
}

// `at(value)` calls an op with a size of that value.
void expect_limit(const BackendLimits& backend, RunSize size, const std::function<void(int64_t)>& at) {
  const Bound& bound = backend[size];
  const int64_t most = bound.only[0] != 0 ? bound.only[1] : bound.most / bound.multiple * bound.multiple;
  EXPECT_THAT(message_of([&] { at(most); }), Not(HasSubstr("the cuda backend"))) << to_string(size);
  const int64_t beyond = most + std::max<int64_t>(bound.multiple, bound.only[0]);
  EXPECT_THAT(message_of([&] { at(beyond); }), HasSubstr(refusal(backend, size, beyond)));
}

const Tensor byte = tensor(DType::u8, {1});
constexpr auto f32 = DType::f32, bf16 = DType::bf16, i32 = DType::i32;

TEST(CudaLimits, OfExperts) {
  const auto expect = [](const std::function<void(int64_t)>& at) { expect_limit(cuda_limits, RunSize::experts, at); };
  static const int32_t start = 0;
  expect([](int64_t E) {
    cuda::grouped_gemm(
        nullptr,
        {.groups = {&start, &start, static_cast<int>(E)}, .x = tensor(f32, {8, 8}), .w = tensor(bf16, {E, 8, 8})},
        Workspace(nullptr, 0));
  });
  expect([](int64_t E) {
    cuda::norm_route(nullptr,
                     {.x = tensor(bf16, {2, 8}), .router_w = tensor(f32, {E, 8}), .picks = tensor(i32, {2, 1})});
  });
  expect([](int64_t E) {
    cuda::moe_norm_grad(nullptr,
                        {.dxg = tensor(bf16, {2, 8}),
                         .slot = tensor(f32, {2, 1}),
                         .router_w = tensor(f32, {E, 8}),
                         .dx = tensor(bf16, {2, 8})},
                        Workspace(nullptr, 0));
  });
  expect([](int64_t E) {
    cuda::route_plan(nullptr, {.picks = tensor(f32, {2, 1}), .counts = tensor(i32, {E}), .token_of = tensor(i32, {2})},
                     Workspace(nullptr, 0));
  });
}

TEST(CudaLimits, OfPicksOfAToken) {
  const auto expect = [](const std::function<void(int64_t)>& at) { expect_limit(cuda_limits, RunSize::top_k, at); };
  expect([](int64_t k) {
    cuda::norm_route(nullptr,
                     {.x = tensor(bf16, {2, 8}), .router_w = tensor(bf16, {64, 8}), .picks = tensor(i32, {2, k})});
  });
  expect([](int64_t k) {
    cuda::moe_norm_grad(nullptr,
                        {.dxg = tensor(f32, {2, 8}),
                         .slot = tensor(i32, {2, k}),
                         .router_w = tensor(f32, {64, 8}),
                         .dx = tensor(bf16, {2, 8})},
                        Workspace(nullptr, 0));
  });
  expect([](int64_t k) {
    cuda::route_plan(nullptr, {.picks = tensor(f32, {2, k}), .counts = tensor(i32, {64}), .token_of = tensor(i32, {2})},
                     Workspace(nullptr, 0));
  });
}

TEST(CudaLimits, OfTheWidth) {
  const auto expect = [](const std::function<void(int64_t)>& at) { expect_limit(cuda_limits, RunSize::width, at); };
  expect([](int64_t d) {
    cuda::embed_norm(nullptr, {.tokens = byte, .table = tensor(bf16, {2, d}), .x = tensor(bf16, {2, d})});
  });
  expect([](int64_t d) {
    cuda::mix_norm(nullptr, {.x_in = tensor(bf16, {2, d}), .n = tensor(bf16, {2, d}), .rstd = byte});
  });
  expect([](int64_t d) {
    cuda::norm_route(nullptr,
                     {.x = tensor(bf16, {2, d}), .router_w = tensor(bf16, {8, d}), .picks = tensor(i32, {2, 2})});
  });
}

TEST(CudaLimits, OfRows) {
  const auto plan = [](int64_t picks, int64_t rows) {
    cuda::route_plan(nullptr,
                     {.picks = tensor(f32, {picks, 1}), .counts = tensor(i32, {8}), .token_of = tensor(i32, {rows})},
                     Workspace(nullptr, 0));
  };
  expect_limit(cuda_limits, RunSize::picks, [&](int64_t picks) { plan(picks, 1); });
  expect_limit(cuda_limits, RunSize::routed_rows, [&](int64_t rows) { plan(1, rows); });
  expect_limit(cuda_fp8_limits, RunSize::routed_rows, [](int64_t rows) {
    cuda::quantize(nullptr, {.x = tensor(f32, {65536, rows, 8}), .out = codes(65536, rows, 8)}, Workspace(nullptr, 0));
  });
  expect_limit(cuda_fp8_limits, RunSize::tokens, [](int64_t tokens) {
    cuda::qk_norm_rope_grad_fp8(nullptr, {.dqkv = tensor(bf16, {tokens, 3, 1, 64}),
                                          .cos = tensor(f32, {1, 32}),
                                          .sin = tensor(f32, {1, 32}),
                                          .rstd = tensor(f32, {tokens, 2, 1}),
                                          .T = 1});
  });
}

TEST(CudaLimits, OfHeads) {
  for (const int64_t head_dim : cuda_limits[RunSize::head_dim].only)
    EXPECT_THAT(message_of([&] {
                  // Goes on to cuDNN; model_test.cpp has it compute.
                  if (!have_gpu()) cuda::CudnnAttention::create({1, 128, 1, head_dim, 128, true});
                }),
                Not(HasSubstr("the cuda backend")));
  for (const int64_t head_dim : {16, 32, 96, 256})
    EXPECT_THAT(message_of([&] {
                  cuda::CudnnAttention::create({1, 128, 1, head_dim, 128, true});
                }),
                HasSubstr(refusal(cuda_limits, RunSize::head_dim, head_dim)));
}

TEST(CudaLimits, OfPrecision) {
  EXPECT_THAT(message_of([] { cuda::muon(nullptr, {.stacks = {}, .full_precision = true}, Workspace(nullptr, 0)); }),
              HasSubstr(fp32_refusal()));
}

}  // namespace
}  // namespace assay::test
