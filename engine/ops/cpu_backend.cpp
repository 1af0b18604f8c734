// The CPU backend: every op of the interface is its twin in engine/ops/cpu, device memory is host memory.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/ops/backend.h"
#include "engine/ops/error.h"

namespace assay {
namespace {

constexpr std::align_val_t alignment{256};

// Waiting threads of OpenMP sleep: spinning ones take the cores from each other as soon as a machine does anything else
// (measured: a step 6 to 30 times slower on two busy cores). What the user has set stays. libgomp reads the variable
// before main, in a constructor without a priority; it is part of the program (cmake/AssayStatic.cmake), so that this
// one runs before.
[[gnu::constructor(101)]] void let_waiting_threads_sleep() {
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
}

class CpuOps final : public Ops {
 public:
  void embed_norm(const EmbedNormArgs& a) override { cpu::embed_norm(a); }
  void embed_norm_grad(const EmbedNormGradArgs& a) override { cpu::embed_norm_grad(a); }
  void embed_grad(const EmbedGradArgs& a) override { cpu::embed_grad(a); }
  void mix_norm(const MixNormArgs& a) override { cpu::mix_norm(a); }
  void mix_norm_grad(const MixNormGradArgs& a) override { cpu::mix_norm_grad(a); }
  void gemm(const GemmArgs& a) override { cpu::gemm(a); }
  void gemm_fp8(const GemmFp8Args& a) override { cpu::gemm_fp8(a); }
  void quantize(const QuantizeArgs& a) override { cpu::quantize(a); }
  void prepare_weights(const PrepareWeightsArgs& a) override { cpu::prepare_weights(a); }
  void scale_update(const ScaleUpdateArgs& a) override { cpu::scale_update(a); }
  void project_qkv(const ProjectQkvArgs& a) override { cpu::project_qkv(a); }
  void qk_norm_rope(const QkNormRopeArgs& a) override { cpu::qk_norm_rope(a); }
  void qk_norm_rope_grad(const QkNormRopeGradArgs& a) override { cpu::qk_norm_rope_grad(a); }
  void attention(const AttentionArgs& a) override { cpu::attention(a); }
  void attention_grad(const AttentionGradArgs& a) override { cpu::attention_grad(a); }
  void norm_route(const NormRouteArgs& a) override { cpu::norm_route(a); }
  void moe_norm_grad(const MoeNormGradArgs& a) override { cpu::moe_norm_grad(a); }
  void route_plan(const RoutePlanArgs& a) override { cpu::route_plan(a); }
  void router_bias_update(const RouterBiasArgs& a) override { cpu::router_bias_update(a); }
  void permute(const PermuteArgs& a) override { cpu::permute(a); }
  void combine(const CombineArgs& a) override { cpu::combine(a); }
  void grouped_gemm(const GroupedGemmArgs& a) override { cpu::grouped_gemm(a); }
  void grouped_wgrad(const GroupedWgradArgs& a) override { cpu::grouped_wgrad(a); }
  void relu2(const Relu2Args& a) override { cpu::relu2(a); }
  void relu2_grad(const Relu2GradArgs& a) override { cpu::relu2_grad(a); }
  void softcap_xent(const SoftcapXentArgs& a) override { cpu::softcap_xent(a); }
  void sum_squares(const SumSquaresArgs& a) override { cpu::sum_squares(a); }
  void sum(const SumArgs& a) override { cpu::sum(a); }
  void add(const AddArgs& a) override { cpu::add(a); }
  void cast(const CastArgs& a) override { cpu::cast(a); }
  void fill_zero(const FillZeroArgs& a) override { cpu::fill_zero(a); }
  void adamw(const AdamWArgs& a) override { cpu::adamw(a); }
  void muon(const MuonArgs& a) override { cpu::muon(a); }
  void expert_load(const ExpertLoadArgs& a) override { cpu::expert_load(a); }
  void step_verdict(const StepVerdictArgs& a) override { cpu::step_verdict(a); }

  void* allocate(size_t bytes, const char* what) override {
    void* memory = ::operator new(bytes > 0 ? bytes : 1, alignment, std::nothrow);
    if (memory == nullptr) {
      throw EngineError(FailureReason::out_of_memory,
                        "no host memory for " + std::string(what) + ": " + std::to_string(bytes) +
                            " bytes; use a smaller model, micro batch or sequence length",
                        "allocate", what);
    }
    return memory;
  }
  void release(void* memory) override { ::operator delete(memory, alignment); }
  void copy_to_device(void* dst, const void* src, size_t bytes) override { copy(dst, src, bytes); }
  void copy_to_host(void* dst, const void* src, size_t bytes) override { copy(dst, src, bytes); }

  // Everything is done when an op returns, and by the host: nothing to wait for, to record or to count.
  bool runs_ahead() const override { return false; }
  void* allocate_host(size_t bytes, const char* what) override { return allocate(bytes, what); }
  void release_host(void* memory) override { release(memory); }
  void copy_to_host_later(void* dst, const void* src, size_t bytes) override { copy(dst, src, bytes); }
  int64_t mark() override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  void wait(int64_t) override {}
  double elapsed_ms(int64_t from, int64_t to) override { return static_cast<double>(to - from) * 1e-6; }
  void replay(std::unique_ptr<Recording>&, const std::function<void()>& work) override { work(); }
  OpsCounters counters() const override { return {}; }

 private:
  static void copy(void* dst, const void* src, size_t bytes) {
    if (bytes > 0) std::memcpy(dst, src, bytes);
  }
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops() {
  return std::make_unique<CpuOps>();
}

}  // namespace assay
