#include "profile/profiled_ops.h"

#include <chrono>
#include <deque>

namespace assay::bench {
namespace {

class ProfiledOps final : public Ops {
 public:
  ProfiledOps(std::unique_ptr<Ops> real, const CostContext& context, Profile* profile)
      : real_(std::move(real)), context_(context), profile_(*profile) {}

  void embed_norm(const EmbedNormArgs& a) override { time(&Ops::embed_norm, a); }
  void embed_norm_grad(const EmbedNormGradArgs& a) override { time(&Ops::embed_norm_grad, a); }
  void embed_grad(const EmbedGradArgs& a) override { time(&Ops::embed_grad, a); }
  void mix_norm(const MixNormArgs& a) override { time(&Ops::mix_norm, a); }
  void mix_norm_grad(const MixNormGradArgs& a) override { time(&Ops::mix_norm_grad, a); }
  void gemm(const GemmArgs& a) override { time(&Ops::gemm, a); }
  void gemm_fp8(const GemmFp8Args& a) override { time(&Ops::gemm_fp8, a); }
  void quantize(const QuantizeArgs& a) override { time(&Ops::quantize, a); }
  void prepare_weights(const PrepareWeightsArgs& a) override { time(&Ops::prepare_weights, a); }
  void scale_update(const ScaleUpdateArgs& a) override { time(&Ops::scale_update, a); }
  void project_qkv(const ProjectQkvArgs& a) override { time(&Ops::project_qkv, a); }
  void qk_norm_rope(const QkNormRopeArgs& a) override { time(&Ops::qk_norm_rope, a); }
  void qk_norm_rope_grad(const QkNormRopeGradArgs& a) override { time(&Ops::qk_norm_rope_grad, a); }
  void attention(const AttentionArgs& a) override { time(&Ops::attention, a); }
  void attention_grad(const AttentionGradArgs& a) override { time(&Ops::attention_grad, a); }
  void norm_route(const NormRouteArgs& a) override { time(&Ops::norm_route, a); }
  void moe_norm_grad(const MoeNormGradArgs& a) override { time(&Ops::moe_norm_grad, a); }
  void route_plan(const RoutePlanArgs& a) override { time(&Ops::route_plan, a); }
  void router_bias_update(const RouterBiasArgs& a) override { time(&Ops::router_bias_update, a); }
  void permute(const PermuteArgs& a) override { time(&Ops::permute, a); }
  void combine(const CombineArgs& a) override { time(&Ops::combine, a); }
  void grouped_gemm(const GroupedGemmArgs& a) override { time(&Ops::grouped_gemm, a); }
  void grouped_wgrad(const GroupedWgradArgs& a) override { time(&Ops::grouped_wgrad, a); }
  void relu2(const Relu2Args& a) override { time(&Ops::relu2, a); }
  void relu2_grad(const Relu2GradArgs& a) override { time(&Ops::relu2_grad, a); }
  void softcap_xent(const SoftcapXentArgs& a) override { time(&Ops::softcap_xent, a); }
  void sum_squares(const SumSquaresArgs& a) override { time(&Ops::sum_squares, a); }
  void sum(const SumArgs& a) override { time(&Ops::sum, a); }
  void add(const AddArgs& a) override { time(&Ops::add, a); }
  void cast(const CastArgs& a) override { time(&Ops::cast, a); }
  void fill_zero(const FillZeroArgs& a) override { time(&Ops::fill_zero, a); }
  void adamw(const AdamWArgs& a) override { time(&Ops::adamw, a); }
  void muon(const MuonArgs& a) override { time(&Ops::muon, a); }
  void expert_load(const ExpertLoadArgs& a) override { time(&Ops::expert_load, a); }
  void step_verdict(const StepVerdictArgs& a) override { time(&Ops::step_verdict, a); }

  std::string choose_tiling(const TilingRequest& r) override { return real_->choose_tiling(r); }
  void* allocate(size_t bytes, const char* what) override { return real_->allocate(bytes, what); }
  void release(void* memory) override { real_->release(memory); }
  void copy_to_device(void* dst, const void* src, size_t bytes) override { real_->copy_to_device(dst, src, bytes); }
  void copy_to_host(void* dst, const void* src, size_t bytes) override { real_->copy_to_host(dst, src, bytes); }
  void* allocate_host(size_t bytes, const char* what) override { return real_->allocate_host(bytes, what); }
  void release_host(void* memory) override { real_->release_host(memory); }
  void copy_to_host_later(void* dst, const void* src, size_t bytes) override {
    real_->copy_to_host_later(dst, src, bytes);
  }

  // The caller's marks would be too many among the profile's own: at each of them everything is waited for.
  bool runs_ahead() const override { return false; }
  int64_t mark() override {
    real_->wait(real_->mark());
    while (!in_flight_.empty()) finish_oldest();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  void wait(int64_t) override {}
  double elapsed_ms(int64_t from, int64_t to) override { return static_cast<double>(to - from) * 1e-6; }
  void replay(std::unique_ptr<Recording>&, const std::function<void()>& work) override { work(); }
  OpsCounters counters() const override { return real_->counters(); }

 private:
  struct InFlight {
    int64_t from, to;  // marks
    Profile::Row* row;
  };
  static constexpr size_t most_in_flight = 7;  // two marks each, and 16 marks back can be read

  template <class Args>
  void time(void (Ops::*op)(const Args&), const Args& args) {
    if (in_flight_.size() == most_in_flight) finish_oldest();
    Profile::Row& row = profile_.row(cost_of(args, context_));
    ++row.calls;
    const int64_t from = real_->mark();
    ((*real_).*op)(args);
    in_flight_.push_back({from, real_->mark(), &row});
  }

  void finish_oldest() {
    const InFlight& done = in_flight_.front();
    real_->wait(done.to);
    done.row->ms += real_->elapsed_ms(done.from, done.to);
    in_flight_.pop_front();
  }

  std::unique_ptr<Ops> real_;
  CostContext context_;
  Profile& profile_;
  std::deque<InFlight> in_flight_;
};

}  // namespace

std::unique_ptr<Ops> make_profiled_ops(std::unique_ptr<Ops> real, const CostContext& context, Profile* profile) {
  return std::make_unique<ProfiledOps>(std::move(real), context, profile);
}

}  // namespace assay::bench
