#include "daemon/preflight.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/limits.h"
#include "db/metric_store.h"
#include "engine/data/shard.h"
#include "engine/plan/plan.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

constexpr double mib = 1 << 20;

// The devices of one kind that one worker has, largest number first: a run never spans workers.
struct Fleet {
  int most = 0;
  int64_t memory_bytes = 0;  // of the largest device of the kind
};

Fleet fleet_of(const PreflightContext& context, std::string_view kind) {
  Fleet fleet;
  std::map<std::string, int> by_worker;
  for (const DeviceListing& listed : context.devices) {
    if (listed.device.kind != kind) continue;
    fleet.most = std::max(fleet.most, ++by_worker[listed.device.worker_id]);
    fleet.memory_bytes = std::max(fleet.memory_bytes, listed.device.memory_bytes);
  }
  if (kind == "cpu" && fleet.most == 0) fleet = {1, context.host_memory_bytes};
  return fleet;
}

// Remembers what does not depend on the run: folders of data, and plans of equal shapes.
class Checker {
 public:
  explicit Checker(const PreflightContext& context)
      : context_(context), cpu_(fleet_of(context, "cpu")), cuda_(fleet_of(context, "cuda")) {}

  RunForecast check(const RunConfig& config) {
    RunForecast forecast;
    const Backend backend = backend_of(config);
    forecast.problem = device_problem(config, backend);
    if (forecast.problem.empty() && config.fault.kind != FaultKind::none && !context_.allow_faults)
      forecast.problem = "fault: injected faults need a daemon started with --allow-fault-injection";
    if (forecast.problem.empty()) forecast.problem = data_problem(config);
    const std::string key = speed_key(config);
    plan(config, backend, key, forecast);
    if (context_.step_ms)
      forecast.estimated_seconds = context_.step_ms(key) * static_cast<double>(config.train.steps) / 1000;
    return forecast;
  }

 private:
  Backend backend_of(const RunConfig& config) const {
    if (config.backend != Backend::automatic) return config.backend;
    return cuda_.most >= config.devices ? Backend::cuda : Backend::cpu;
  }

  std::string device_problem(const RunConfig& config, Backend backend) const {
    const Fleet& fleet = backend == Backend::cuda ? cuda_ : cpu_;
    const std::string_view kind = backend == Backend::cuda ? "GPU" : "CPU device";
    if (fleet.most == 0) return fmt::format("backend: no worker has a {} (see `assay devices`)", kind);
    if (config.devices > fleet.most)
      return fmt::format("devices: needs {}, but no worker has more than {} {}{}", config.devices, fleet.most, kind,
                         fleet.most == 1 ? "" : "s");
    return {};
  }

  std::string data_problem(const RunConfig& config) {
    auto [it, is_new] = corpora_.try_emplace(config.data.path);
    if (is_new) it->second = std::make_unique<Result<Corpus>>(open_corpus(config.data.path));
    const Result<Corpus>& corpus = *it->second;
    if (!corpus.ok()) return "data.path: " + corpus.error().message;
    const int64_t needed =
        config.model.sequence_len * static_cast<int64_t>(config.train.device_batch) * config.devices + 1;
    if (corpus->train_tokens < needed)
      return fmt::format("data.path: {} holds {} training tokens, one micro-batch needs {}", config.data.path,
                         corpus->train_tokens, needed);
    if (config.train.val_every > 0 && corpus->val_tokens == 0)
      return fmt::format("train.val_every: {} has no *_val_*.bin shards", config.data.path);
    return {};
  }

  void plan(const RunConfig& config, Backend backend, const std::string& key, RunForecast& forecast) {
    auto [it, is_new] = plans_.try_emplace(key);
    if (is_new) it->second = summarize(config, backend);
    const Planned& planned = it->second;
    forecast.parameters = planned.parameters;
    forecast.peak_mem_mib = planned.peak_mem_mib;
    forecast.mflop_per_token = planned.mflop_per_token;
    if (!forecast.problem.empty()) return;
    forecast.problem = planned.problem;
    const int64_t memory = (backend == Backend::cuda ? cuda_ : cpu_).memory_bytes;
    if (forecast.problem.empty() && memory > 0 && planned.peak_mem_mib * mib > static_cast<double>(memory))
      forecast.problem =
          fmt::format("needs {:.0f} MiB a device, the largest {} has {:.0f} MiB", planned.peak_mem_mib,
                      backend == Backend::cuda ? "GPU" : "CPU device", static_cast<double>(memory) / mib);
  }

  struct Planned {
    int64_t parameters = 0;
    double peak_mem_mib = 0;
    double mflop_per_token = 0;
    std::string problem;
  };
  static Planned summarize(const RunConfig& config, Backend backend) {
    auto plan = build_plan(config, backend);
    if (!plan.ok()) return {.problem = plan.error().message};
    return {plan->parameters, plan->peak_mem_mib, plan->flops_per_token / 1e6, {}};
  }

  const PreflightContext& context_;
  const Fleet cpu_;
  const Fleet cuda_;
  std::map<std::string, std::unique_ptr<Result<Corpus>>> corpora_;
  std::map<std::string, Planned> plans_;
};

// Old runs say little about today's speed; this many are looked through.
constexpr int64_t runs_looked_at = 100;

}  // namespace

std::string speed_key(const RunConfig& config) {
  RunConfig like = config;
  const TrainConfig& train = config.train;
  like.train = TrainConfig{};
  like.train.total_batch_tokens = train.total_batch_tokens;
  like.train.device_batch = train.device_batch;
  like.train.deterministic = train.deterministic;
  like.data = {};
  like.fault = {};
  return to_toml(like);
}

std::vector<RunForecast> forecast(const ExperimentSpec& spec, const PreflightContext& context) {
  Checker checker(context);
  std::vector<RunForecast> forecasts;
  forecasts.reserve(spec.runs.size());
  for (const PlannedRun& run : spec.runs) forecasts.push_back(checker.check(run.config));
  return forecasts;
}

std::function<double(const std::string&)> measured_step_times(RunStore& runs, MetricStore& metrics) {
  auto times = std::make_shared<std::map<std::string, double>>();
  RunFilter filter;
  filter.states = {RunState::completed};
  filter.limit = runs_looked_at;
  const auto completed = runs.list_runs(filter);  // latest first
  if (completed.ok()) {
    for (const ListedRun& listed : *completed) {
      const auto run = runs.get_run_by_id(listed.run.id);
      if (!run.ok() || !run->latest) continue;
      const auto summary = metrics.summary(run->latest->id);
      if (!summary.ok() || summary->steps_observed == 0) continue;
      times->try_emplace(speed_key(parse_run_config(run->run.config_toml, "run.toml").config), summary->tail50_dt_ms);
    }
  }
  return [times](const std::string& key) {
    const auto it = times->find(key);
    return it == times->end() ? 0.0 : it->second;
  };
}

}  // namespace assay
