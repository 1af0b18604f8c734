// cuDNN's attention, as the CUDA backend calls it, against the twin.
#include "cuda_support.h"
#include "engine/ops/cuda/cuda_ops.h"

namespace assay {
namespace {

using namespace test;

struct Shape {
  int64_t B, T, H, D, window;
};

TEST(CudaAttention, ForwardAndBackwardFollowTheTwin) {
  ASSAY_NEEDS_GPU();
  Random random(120);
  const auto ops = make_cuda_ops();
  for (const Shape& s : {Shape{1, 128, 2, 128, 128}, Shape{2, 256, 3, 128, 64}, Shape{1, 512, 2, 64, 1024},
                         Shape{3, 320, 1, 128, 100}}) {
    const std::string what = "B " + std::to_string(s.B) + ", T " + std::to_string(s.T) + ", H " + std::to_string(s.H) +
                             ", D " + std::to_string(s.D) + ", window " + std::to_string(s.window);
    const int64_t N = s.B * s.T;
    const Array qkv = random_array(random, DType::bf16, {N, 3, s.H, s.D}),
                dout = random_array(random, DType::bf16, {N, s.H, s.D});
    Array out = poisoned(DType::bf16, {N, s.H, s.D}), lse = poisoned(DType::f32, {s.B, s.H, s.T}),
          dqkv = poisoned(DType::bf16, {N, 3, s.H, s.D});
    const Mirror mqkv(qkv), mdout(dout), mout(out), mlse(lse), mdqkv(dqkv);
    ops->attention({mqkv, mout, mlse, s.B, s.T, s.window});
    cpu::attention({qkv, out, lse, s.B, s.T, s.window});
    // P is rounded to bf16 before its product with V there, and not here.
    expect_near("out " + what, mout.back(), out, std::ldexp(1.0, -7), 0.03 * rms(out));
    expect_near("lse " + what, mlse.back(), lse, 1e-5, 1e-5);
    ops->attention_grad({mqkv, mout, mlse, mdout, mdqkv, s.B, s.T, s.window});
    cpu::attention_grad({qkv, out, lse, dout, dqkv, s.B, s.T, s.window});
    expect_near("dqkv " + what, mdqkv.back(), dqkv, std::ldexp(1.0, -6), 0.03 * rms(dqkv));
  }
}

TEST(CudaAttention, GivesTheSameBitsEveryTime) {
  ASSAY_NEEDS_GPU();
  Random random(121);
  const auto ops = make_cuda_ops();
  const int64_t B = 4, T = 512, H = 2, D = 128, N = B * T;
  const Mirror qkv(random_array(random, DType::bf16, {N, 3, H, D})), dout(random_array(random, DType::bf16, {N, H, D}));
  Array first;
  for (int i = 0; i < 5; ++i) {
    const Mirror out(poisoned(DType::bf16, {N, H, D})), lse(poisoned(DType::f32, {B, H, T})),
        dqkv(poisoned(DType::bf16, {N, 3, H, D}));
    ops->attention({qkv, out, lse, B, T, 256});
    ops->attention_grad({qkv, out, lse, dout, dqkv, B, T, 256});
    if (i == 0) first = dqkv.back();
    expect_same("dqkv", dqkv.back(), first);
  }
}

}  // namespace
}  // namespace assay
