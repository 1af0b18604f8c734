// The plan against the ops: a step of the reference model without any memory or arithmetic, only to see that whatever
// an op reads and writes lies apart. A lifetime in the plan that begins too late or ends too early puts two of an op's
// tensors into the same place.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "model_fixture.h"

namespace assay::testing {
namespace {

// Tensors of an op are found by their looks among the bytes of its arguments: a pointer into the arena, a type, a rank
// and a shape that fits.
class ApartOps final : public Ops {
 public:
  void embed_norm(const EmbedNormArgs& args) override { check("embed_norm", args); }
  void embed_norm_grad(const EmbedNormGradArgs& args) override { check("embed_norm_grad", args); }
  void embed_grad(const EmbedGradArgs& args) override { check("embed_grad", args); }
  void mix_norm(const MixNormArgs& args) override { check("mix_norm", args); }
  void mix_norm_grad(const MixNormGradArgs& args) override { check("mix_norm_grad", args); }
  void gemm(const GemmArgs& args) override { check("gemm", args); }
  void gemm_fp8(const GemmFp8Args& args) override { check("gemm_fp8", args); }
  void quantize(const QuantizeArgs& args) override { check("quantize", args); }
  void prepare_weights(const PrepareWeightsArgs& args) override { check("prepare_weights", args); }
  void scale_update(const ScaleUpdateArgs& args) override { check("scale_update", args); }
  void project_qkv(const ProjectQkvArgs& args) override { check("project_qkv", args); }
  void qk_norm_rope(const QkNormRopeArgs& args) override { check("qk_norm_rope", args); }
  void qk_norm_rope_grad(const QkNormRopeGradArgs& args) override { check("qk_norm_rope_grad", args); }
  void attention(const AttentionArgs& args) override { check("attention", args); }
  void attention_grad(const AttentionGradArgs& args) override { check("attention_grad", args); }
  void norm_route(const NormRouteArgs& args) override { check("norm_route", args); }
  void moe_norm_grad(const MoeNormGradArgs& args) override { check("moe_norm_grad", args); }
  void route_plan(const RoutePlanArgs& args) override { check("route_plan", args); }
  void router_bias_update(const RouterBiasArgs& args) override { check("router_bias_update", args); }
  void permute(const PermuteArgs& args) override { check("permute", args); }
  void combine(const CombineArgs& args) override { check("combine", args); }
  void grouped_gemm(const GroupedGemmArgs& args) override { check("grouped_gemm", args); }
  void grouped_wgrad(const GroupedWgradArgs& args) override { check("grouped_wgrad", args); }
  void relu2(const Relu2Args& args) override { check("relu2", args); }
  void relu2_grad(const Relu2GradArgs& args) override { check("relu2_grad", args); }
  void softcap_xent(const SoftcapXentArgs& args) override { check("softcap_xent", args); }
  void sum_squares(const SumSquaresArgs& args) override { check("sum_squares", args); }
  void sum(const SumArgs& args) override { check("sum", args); }
  void add(const AddArgs& args) override { check("add", args); }
  void cast(const CastArgs& args) override { check("cast", args); }
  void fill_zero(const FillZeroArgs& args) override { check("fill_zero", args); }
  void adamw(const AdamWArgs& args) override { check("adamw", args); }
  void muon(const MuonArgs& args) override { check("muon", args); }
  void expert_load(const ExpertLoadArgs& args) override { check("expert_load", args); }
  void step_verdict(const StepVerdictArgs& args) override { check("step_verdict", args); }

  void* allocate(size_t bytes, const char*) override {
    arena_bytes_ = bytes;
    return base;
  }
  void release(void*) override {}
  void copy_to_device(void*, const void*, size_t) override {}
  void copy_to_host(void*, const void*, size_t) override {}
  bool runs_ahead() const override { return false; }
  void* allocate_host(size_t bytes, const char*) override { return std::calloc(1, bytes); }
  void release_host(void* memory) override { std::free(memory); }
  void copy_to_host_later(void*, const void*, size_t) override {}
  int64_t mark() override { return 0; }
  void wait(int64_t) override {}
  double elapsed_ms(int64_t, int64_t) override { return 0; }
  void replay(std::unique_ptr<Recording>&, const std::function<void()>& work) override { work(); }
  OpsCounters counters() const override { return {}; }

  int64_t checked() const { return checked_; }  // ops
  std::vector<std::string> faults;

 private:
  static constexpr std::uintptr_t base_address = std::uintptr_t{1} << 40;
  static inline void* const base = reinterpret_cast<void*>(base_address);  // never read or written

  bool looks_like_a_tensor(const Tensor& t) const {
    const auto at = reinterpret_cast<std::uintptr_t>(t.data);
    if (at < base_address || at >= base_address + arena_bytes_) return false;
    if (static_cast<int>(t.dtype) > static_cast<int>(DType::u8) || t.rank < 1 || t.rank > 4) return false;
    for (int i = 0; i < t.rank; ++i)
      if (t.dim(i) < 1 || t.dim(i) > int64_t{1} << 40) return false;
    return at + t.bytes() <= base_address + arena_bytes_;
  }

  template <class Args>
  void check(const char* op, const Args& args) {
    ++checked_;
    std::vector<Tensor> tensors;
    const auto* bytes = reinterpret_cast<const char*>(&args);
    for (size_t i = 0; i + sizeof(Tensor) <= sizeof(Args); i += alignof(Tensor)) {
      Tensor t;
      std::memcpy(&t, bytes + i, sizeof(t));
      if (looks_like_a_tensor(t)) tensors.push_back(t);
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      for (size_t j = i + 1; j < tensors.size(); ++j) {
        const Tensor &a = tensors[i], &b = tensors[j];
        const auto *x = a.as<char>(), *y = b.as<char>();
        const bool in_place = x == y && a.bytes() == b.bytes();
        if (!in_place && x < y + b.bytes() && y < x + a.bytes())
          faults.push_back(std::string(op) + ": " + a.describe() + " and " + b.describe());
      }
    }
  }

  size_t arena_bytes_ = 0;
  int64_t checked_ = 0;
};

std::vector<RunConfig> settings() {
  std::vector<RunConfig> all;
  for (const int bits : {0, 1, 2, 3, 4, 5, 6, 7})
    for (const Precision precision : {Precision::bf16, Precision::fp8_noexperts, Precision::fp8_experts})
      for (const Fp8Recipe recipe : {Fp8Recipe::tensorwise, Fp8Recipe::rowwise, Fp8Recipe::blockwise})
        for (const Execution execution : {Execution::eager, Execution::static_graph, Execution::dynamic_graph})
          for (const int depth : {1, 3, 12}) {
            RunConfig c;
            c.precision = precision;
            c.execution = execution;
            c.model.depth = depth;
            c.model.d_model = 768;
            c.model.value_embeddings = (bits & 1) != 0;
            c.model.residual_lambdas = (bits & 1) != 0;
            c.fp8.recipe = recipe;
            c.fp8.lm_head = (bits & 2) != 0;
            c.fp8.wgrad = (bits & 4) != 0 ? Fp8Wgrad::bf16 : Fp8Wgrad::automatic;
            c.train.device_batch = 32;
            c.train.total_batch_tokens = 65536;
            c.data.path = "unused";
            all.push_back(c);
          }
  return all;
}

TEST(OpMemory, WhatAnOpReadsAndWritesLiesApart) {
  int64_t ops_checked = 0;
  for (const RunConfig& c : settings()) {
    ApartOps ops;
    DeviceRun run(c, Backend::cpu, ops, {.row_alignment = 128});
    const std::vector<int32_t> tokens(65536), targets(65536);
    for (int step = 0; step < 2; ++step) {
      run.model().begin_step();
      run.model().micro_step(tokens.data(), targets.data(), 1.0 / 65536);
      run.model().end_step();
    }
    ops_checked += ops.checked();
    ASSERT_TRUE(ops.faults.empty()) << ops.faults.front() << "; " << to_string(c.precision) << ", "
                                    << to_string(c.execution) << ", " << to_string(c.fp8.recipe) << ", depth "
                                    << c.model.depth << ", lm_head " << c.fp8.lm_head << ", wgrad "
                                    << to_string(c.fp8.wgrad);
  }
  EXPECT_GT(ops_checked, 100000);
}

}  // namespace
}  // namespace assay::testing
