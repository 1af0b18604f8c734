// relu^2, loss, sums, casts and AdamW.
#include "cuda_support.h"
#include "engine/ops/cuda/check.h"

namespace assay {
namespace {

using namespace test;

const DType dtypes[] = {DType::bf16, DType::f32};

TEST(CudaRelu2, IsItsTwinBitForBitAlsoInPlace) {
  ASSAY_NEEDS_GPU();
  Random random(50);
  for (int64_t n : {8, 1000, 4104, 100000}) {
    for (DType dtype : dtypes) {
      Array z = random_array(random, dtype, {n}), h = poisoned(dtype, {n});
      z.set(3, std::nan(""));
      const Mirror mz(z), mh(h);
      cuda::relu2(nullptr, {mz, mh});
      cuda::relu2(nullptr, {mz, mz});
      cpu::relu2({z, h});
      h.set(3, 0);  // NaNs have many bit patterns: checked apart
      Array got = mh.back(), in_place = mz.back();
      EXPECT_TRUE(std::isnan(got.get(3)) && std::isnan(in_place.get(3))) << n;
      got.set(3, 0), in_place.set(3, 0);
      expect_same("h", got, h);
      expect_same("in place", in_place, h);
    }
  }
}

TEST(CudaRelu2Grad, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(51);
  for (int64_t R : {1, 129}) {
    for (int64_t width : {8, 768, 1024, 2000}) {
      for (DType dtype : dtypes) {
        for (bool gated : {false, true}) {
          const std::string what = shape_text(dtype, {R, width}) + (gated ? " gated" : "");
          const Array du = random_array(random, dtype, {R, width});
          Array gate(DType::f32, {R});
          for (int64_t r = 0; r < R; ++r) gate.set(r, r == 1 ? 0 : random.uniform(0.1, 1));
          Array h = random_array(random, dtype, {R, width}), dz = poisoned(dtype, {R, width});
          Array gate_grad = poisoned(DType::f32, {R});
          for (int64_t i = 0; i < h.size(); ++i) h.set(i, std::max(0.0, h.get(i)));
          const Mirror mdu(du), mgate(gate), mh(h), mdz(dz), mgate_grad(gate_grad);
          if (gated) {
            cuda::relu2_grad(nullptr, {mdu, mh, mdz, mgate, mgate_grad});
            cpu::relu2_grad({du, h, dz, gate, gate_grad});
            expect_close("gate_grad " + what, mgate_grad.back(), gate_grad);
          } else {
            cuda::relu2_grad(nullptr, {.du = mdu, .h = mh, .dz = mdz});
            cpu::relu2_grad({.du = du, .h = h, .dz = dz});
          }
          expect_same("dz " + what, mdz.back(), dz);
          expect_same("h " + what, mh.back(), h);
        }
      }
    }
  }
}

TEST(CudaSoftcapXent, FollowsItsTwin) {
  ASSAY_NEEDS_GPU();
  Random random(52);
  for (int64_t V : {8, 1000, 1001, 32760, 32768, 50304, 65536}) {
    for (DType dtype : dtypes) {
      for (double size : {0.0, 3.0, 60.0}) {  // 60: far into the saturation of the cap
        const int64_t C = V > 2000 ? 3 : 700;
        const std::string what = shape_text(dtype, {C, V}) + " of size " + std::to_string(size);
        Array logits = random_array(random, dtype, {C, V}, size), loss = poisoned(DType::f32, {C});
        Array loss_only = poisoned(DType::f32, {C});
        Array targets = random_integers(random, {C}, 0, V - 1);
        targets.set(0, static_cast<double>(V - 1)), targets.set(C - 1, 0);
        const Mirror mlogits(logits), mtargets(targets), mloss(loss), mloss_only(loss_only);
        const double cap = size == 3 && V == 1000 ? 50 : 15;
        SoftcapXentArgs on_device{mlogits, mtargets, mloss_only, cap, 0.25, true};
        cuda::softcap_xent(nullptr, on_device, workspace());
        expect_same("logits of a forward pass " + what, mlogits.back(), logits);
        on_device.forward_only = false;
        on_device.loss = mloss;
        cuda::softcap_xent(nullptr, on_device, workspace());
        cpu::softcap_xent({logits, targets, loss, cap, 0.25, false});
        expect_near("loss " + what, mloss.back(), loss, 2e-6, 4e-6);
        expect_same("loss of a forward pass " + what, mloss_only.back(), mloss.back());
        // At the target, p - 1 cancels: there FP32 noise is left when p is near 1, as it is with large logits.
        expect_near("dlogits " + what, mlogits.back(), logits, dtype == DType::bf16 ? std::ldexp(1.001, -7) : 3e-5,
                    size > 10 ? 2e-7 : 1e-8);
      }
    }
  }
}

TEST(CudaSums, FollowTheirTwins) {
  ASSAY_NEEDS_GPU();
  Random random(53);
  for (int64_t n : {1, 1000, 32768, 32769, 1'000'003}) {
    for (DType dtype : dtypes) {
      for (int64_t first : {0, 1}) {  // 1: not at a 16-byte address
        if (first >= n) continue;
        const Array x = random_array(random, dtype, {n});
        Array sums(DType::f64, {2});
        sums.set(0, 0.5), sums.set(1, 0.25);
        const Mirror mx(x), msums(sums);
        double *on = msums.t().as<double>(), *host = sums.t().as<double>();
        const Tensor part = mx.t().slice(first, n - first), host_part = x.t().slice(first, n - first);
        cuda::sum_squares(nullptr, {{part}, on}, workspace());
        cuda::sum(nullptr, {part, on + 1}, workspace());
        cpu::sum_squares({{host_part}, host});
        cpu::sum({host_part, host + 1});
        const Array got = msums.back();
        const double scale = 1e-13 * static_cast<double>(n);
        EXPECT_NEAR(got.get(0), sums.get(0), scale) << "n " << n;
        EXPECT_NEAR(got.get(1), sums.get(1), scale) << "n " << n;
      }
    }
  }
}

// More tensors than a launch takes, of sizes from one element to several pieces.
TEST(CudaSums, OfManyTensorsAreThoseOfEach) {
  ASSAY_NEEDS_GPU();
  Random random(55);
  std::vector<Array> arrays;
  for (int i = 0; i < 200; ++i) arrays.push_back(random_array(random, DType::f32, {i % 7 == 0 ? 1 : 997 * i + i % 3}));
  std::vector<Mirror> mirrors(arrays.begin(), arrays.end());
  Array sums(DType::f64, {200});
  const Mirror msums(sums);
  SumSquaresArgs host{{}, sums.t().as<double>()}, device{{}, msums.t().as<double>()};
  for (const Array& a : arrays) host.x.push_back(a.t());
  for (const Mirror& m : mirrors) device.x.push_back(m.t());
  cuda::sum_squares(nullptr, device, workspace());
  cpu::sum_squares(host);
  const Array got = msums.back();
  for (int64_t i = 0; i < 200; ++i)
    EXPECT_NEAR(got.get(i), sums.get(i), 1e-13 * static_cast<double>(arrays[static_cast<size_t>(i)].size())) << i;
}

TEST(CudaAddAndCast, AreTheirTwinsBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(54);
  for (int64_t n : {1, 7, 8, 1000, 4097, 100001}) {
    for (DType from : dtypes) {
      for (DType to : dtypes) {
        for (int64_t first : {0, 1}) {
          if (first >= n) continue;
          const std::string what = shape_text(from, {n}) + " to " + to_string(to);
          const Array x = random_array(random, from, {n});
          Array y = random_array(random, to, {n}), z = poisoned(to, {n});
          const Mirror mx(x), my(y), mz(z);
          const auto part = [&](const Tensor& t) { return t.slice(first, n - first); };
          cuda::add(nullptr, {part(mx), part(my)});
          cuda::cast(nullptr, {part(mx), part(mz)});
          cpu::add({part(x), part(y)});
          cpu::cast({part(x), part(z)});
          expect_same("add " + what, my.back(), y);
          expect_same("cast " + what, mz.back(), z);
        }
      }
    }
  }
}

TEST(CudaFillZero, LeavesZeros) {
  ASSAY_NEEDS_GPU();
  Array x = poisoned(DType::bf16, {1001});
  const Mirror mx(x);
  cuda::fill_zero(nullptr, {mx});
  cpu::fill_zero({x});
  expect_same("x", mx.back(), x);
}

TEST(CudaAdamW, IsItsTwinBitForBit) {
  ASSAY_NEEDS_GPU();
  Random random(55);
  for (int64_t n : {1, 3, 1024, 10001}) {
    Array param = random_array(random, DType::f32, {n}), grad = random_array(random, DType::f32, {n});
    Array m = random_array(random, DType::f32, {n}), v = random_array(random, DType::f32, {n});
    for (int64_t i = 0; i < n; ++i) v.set(i, v.get(i) * v.get(i));
    const Mirror mparam(param), mgrad(grad), mm(m), mv(v);
    cuda::adamw(nullptr, {mparam, mgrad, mm, mv, 0.003, 0.8, 0.95, 1e-10, 0.1, 7});
    cpu::adamw({param, grad, m, v, 0.003, 0.8, 0.95, 1e-10, 0.1, 7});
    expect_same("param", mparam.back(), param);
    expect_same("m", mm.back(), m);
    expect_same("v", mv.back(), v);
  }
}

TEST(CudaLaunch, AnErrorOfTheDriverCarriesOpPlaceAndShape) {
  try {
    ASSAY_CUDA_CHECK("some_op", cudaErrorInvalidConfiguration, "bf16[3, 8]");
    FAIL() << "nothing was thrown";
  } catch (const EngineError& error) {
    EXPECT_EQ(error.reason, FailureReason::device_error);
    EXPECT_EQ(error.operation, "some_op");
    EXPECT_NE(std::string(error.what()).find("elementwise_test.cpp:"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("bf16[3, 8]"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace assay
