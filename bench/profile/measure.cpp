#include "profile/measure.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/ops/error.h"
#include "engine/backend/open_backend.h"
#include "engine/trainer/run_trainer.h"
#include "profile/profiled_ops.h"

namespace assay::bench {
namespace {

constexpr int profiled_steps = 4;

nlohmann::json describe(const RunConfig& c, const std::string& device) {
  nlohmann::json line = {{"engine", "assay"},
                         {"device", device},
                         {"precision", to_string(c.precision)},
                         {"execution", to_string(c.execution)},
                         {"coalesce_tiling", c.coalesce_tiling},
                         {"depth", c.model.depth},
                         {"d_model", model_width(c.model)},
                         {"experts", c.model.experts},
                         {"sequence_len", c.model.sequence_len},
                         {"tokens", c.train.total_batch_tokens},
                         {"accum", grad_accum(c)},
                         {"value_embeddings", c.model.value_embeddings},
                         {"deterministic", c.train.deterministic}};
  if (!uses_fp8(c)) return line;
  line["recipe"] = to_string(c.fp8.recipe);
  line["wgrad"] = model_shape(c).wgrad_fp8 ? "fp8" : "bf16";
  line["grad_format"] = to_string(c.fp8.grad_format);
  line["lm_head_fp8"] = c.fp8.lm_head;
  return line;
}

void print(const nlohmann::json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

struct Window {
  std::vector<double> ms;  // of its steps, ascending
  OpsCounters before, after;
  StepMetrics last;
};

// The first steps in which nothing was recorded: static execution may yet find its capacity too small, and that is no
// steady state.
Window steady_steps(Trainer& trainer, int steps) {
  Window w;
  for (int attempt = 0; attempt < most_windows; ++attempt) {
    w = {.before = trainer.counters()};
    for (int i = 0; i < steps; ++i) {
      w.last = trainer.step(true);
      w.ms.push_back(w.last.dt_ms);
    }
    w.after = trainer.counters();
    if (w.after.captures == w.before.captures) break;
  }
  std::sort(w.ms.begin(), w.ms.end());
  return w;
}

// Static execution pads every expert's rows to its capacity.
void describe_padding(const ModelShape& s, nlohmann::json* line) {
  if (s.capacity == 0) return;
  (*line)["capacity"] = s.capacity;
  (*line)["padding_percent"] =
      100.0 * (1.0 - static_cast<double>(s.top_k * s.tokens) / static_cast<double>(s.routed_rows));
}

// The log's line of what was chosen and what the kernels took.
void describe_tiling(const Trainer& trainer, nlohmann::json* line) {
  const std::string begin = "tiling: ";
  for (const std::string& note : trainer.notes())
    if (note.starts_with(begin)) (*line)["tiling"] = note.substr(begin.size());
}

// Adds what was measured to the line; returns the median step in milliseconds.
double time_steps(const RunConfig& c, int steps, nlohmann::json* line) {
  const auto trainer = Trainer::create(c, {});
  const StepMetrics first = trainer->step(true);
  for (int i = 1; i < warm_up_steps; ++i) trainer->step(true);
  const auto [ms, before, after, last] = steady_steps(*trainer, steps);
  const double median = ms[ms.size() / 2];
  const double tok_s = static_cast<double>(c.train.total_batch_tokens) * 1000.0 / median;
  const auto per_step = [&](int64_t n) { return static_cast<double>(n) / steps; };
  const RunPlan& plan = trainer->plan();
  line->update({{"steps", steps},
                {"tok_s", tok_s},
                {"dt_ms", {{"median", median}, {"min", ms.front()}, {"max", ms.back()}}},
                {"mfu", 100.0 * plan.flops_per_token * tok_s / 989.5e12},
                {"peak_mib", last.peak_mem_mib},
                {"planned_mib", plan.peak_mem_mib},
                {"launches", per_step(after.launches - before.launches)},
                {"host_syncs", per_step(after.host_syncs - before.host_syncs)},
                {"allocations", per_step(after.allocations - before.allocations)},
                {"captures", after.captures},
                {"capture_s", after.capture_s},
                {"loss", {{"first", first.loss}, {"last", last.loss}}},
                {"expert_load_max", {{"first", first.expert_load_max}, {"last", last.expert_load_max}}}});
  describe_padding(plan.shape, line);
  describe_tiling(*trainer, line);
  return median;
}

void profile_steps(const RunConfig& c, double step_ms) {
  Profile profile;
  OpenedBackend backend = open_backend(c);
  const CostContext context{.routed_rows =
                                static_cast<int64_t>(c.train.device_batch) * c.model.sequence_len * c.model.top_k};
  RunTrainer trainer(c, {}, backend.kind, make_profiled_ops(std::move(backend.ops), context, &profile), 0, 1);
  for (int i = 0; i < warm_up_steps; ++i) trainer.step();
  profile.clear();
  for (int i = 0; i < profiled_steps; ++i) trainer.step();
  profile.print(stdout, profiled_steps, step_ms);
  std::fflush(stdout);
}

}  // namespace

bool uses_fp8(const RunConfig& c) {
  return c.precision == Precision::fp8_noexperts || c.precision == Precision::fp8_experts;
}

bool measure(const RunConfig& c, const std::string& device, int steps, bool profile) {
  nlohmann::json line = describe(c, device);
  try {
    const double step_ms = time_steps(c, steps, &line);
    print(line);
    if (profile) profile_steps(c, step_ms);
    return true;
  } catch (const EngineError& e) {
    line["error"] = e.what();
    print(line);
    return false;
  }
}

}  // namespace assay::bench
