#include "engine/trainer/device_run.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/ops/error.h"

namespace assay {
namespace {

// Contents of the buffers that live through the whole run, by name.
using Kept = std::map<std::string, std::vector<char>>;

int last_tick(const RunPlan& plan) {
  int last = 0;
  for (const PlannedBuffer& b : plan.buffers) last = std::max(last, b.last);
  return last;
}

Kept read_kept(const RunPlan& plan, const char* memory, Ops& ops) {
  Kept kept;
  const int last = last_tick(plan);
  for (const PlannedBuffer& b : plan.buffers) {
    if (b.first != 0 || b.last != last) continue;
    std::vector<char>& bytes = kept[b.name];
    bytes.resize(b.bytes);
    ops.copy_to_host(bytes.data(), memory + b.offset, b.bytes);
  }
  return kept;
}

void write_kept(const Kept& kept, const RunPlan& plan, char* memory, Ops& ops) {
  for (const PlannedBuffer& b : plan.buffers)
    if (const auto found = kept.find(b.name); found != kept.end())
      ops.copy_to_device(memory + b.offset, found->second.data(), b.bytes);
}

}  // namespace

DeviceRun::DeviceRun(const RunConfig& config, Backend backend, Ops& ops, const PlanOptions& options)
    : config_(config), backend_(backend), ops_(ops), options_(options) {
  build();
}

void DeviceRun::build() {
  Result<RunPlan> plan = build_plan(config_, backend_, options_);
  if (!plan.ok()) throw EngineError(FailureReason::plan_error, plan.error().message, "plan");
  plan_ = std::move(plan).value();
  memory_ = std::make_unique<DeviceMemory>(ops_, plan_.arena_bytes, "the arena of the run");
  if (tiling_.empty()) choose_tiling();  // once: grown for more capacity, it is the same run
  model_ = std::make_unique<Model>(config_, plan_, ops_, memory_->data());
  peak_mem_mib_ = std::max(peak_mem_mib_, plan_.peak_mem_mib);
}

// In the arena, while nothing is in it.
void DeviceRun::choose_tiling() {
  const ModelShape& s = plan_.shape;
  tiling_ = ops_.choose_tiling({.tokens = s.tokens,
                                .T = s.T,
                                .d = s.d,
                                .heads = s.heads,
                                .head_dim = s.head_dim,
                                .experts = s.experts,
                                .top_k = s.top_k,
                                .activation = s.activation_bytes == 2 ? DType::bf16 : DType::f32,
                                .routed_codes = s.routed_fp8,
                                .gradient_codes = s.codes_from_producers,
                                .memory = memory_->data(),
                                .bytes = plan_.arena_bytes});
}

void DeviceRun::take_over_capacity(int64_t capacity, int recaptures) {
  recaptures_ = recaptures;
  if (capacity == plan_.static_capacity) return;
  options_.static_capacity = capacity;
  model_.reset();
  memory_.reset();
  build();
}

// The old arena is gone before the new one comes: device memory never holds both. What must survive waits on the host.
void DeviceRun::grow(const CapacityExceeded& e, int64_t step) {
  if (recaptures_ >= config_.recompile_limit) {
    const ModelShape& s = plan_.shape;
    const double needed = static_cast<double>(e.rows * s.experts) / static_cast<double>(s.top_k * s.tokens);
    throw EngineError(
        FailureReason::plan_error,
        fmt::format(
            "step {}: expert {} of layer {} needs {} rows, static capacity is {} and all {} re-captures of "
            "recompile_limit are used; set capacity_factor = {:.2f} (now {:.2f}) or more, raise recompile_limit, "
            "or use execution = \"dynamic\"",
            step, e.expert, e.layer, e.rows, s.capacity, config_.recompile_limit, std::ceil(needed * 100) / 100,
            config_.capacity_factor),
        "route_plan", layer_name(e.layer, "counts"), step);
  }
  ++recaptures_;
  const Kept kept = read_kept(plan_, static_cast<const char*>(memory_->data()), ops_);
  model_.reset();
  memory_.reset();
  options_.static_capacity = padded_capacity(config_, e.rows);
  build();
  write_kept(kept, plan_, static_cast<char*>(memory_->data()), ops_);
  model_->forgive();  // the verdict was kept as well
  model_->continue_at(step);
}

double DeviceRun::evaluate(const int32_t* tokens, const int32_t* targets, int64_t step) {
  double loss_sum = 0;
  while (const auto exceeded = model_->evaluate(tokens, targets, &loss_sum)) grow(*exceeded, step);
  return loss_sum;
}

}  // namespace assay
