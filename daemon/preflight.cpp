#include "daemon/preflight.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/limits.h"
#include "base/text.h"
#include "db/metric_store.h"
#include "db/run_store.h"
#include "engine/check/run_check.h"
#include "spec/backend.h"
#include "spec/run_config_toml.h"

namespace assay {
namespace {

// The devices of one kind: a run never spans workers.
struct Fleet {
  int most = 0;  // on one worker
  int all = 0;
  int64_t memory_bytes = 0;  // of the largest device, whose name this is
  std::string name;
  bool busy = false;  // one of them works for us
};

Fleet fleet_of(const PreflightContext& context, DeviceKind kind) {
  Fleet fleet;
  std::map<std::string, int> by_worker;
  for (const DeviceListing& listed : context.devices) {
    if (listed.device.kind != kind) continue;
    ++fleet.all;
    fleet.most = std::max(fleet.most, ++by_worker[listed.device.worker_id]);
    fleet.busy |= listed.attempt_id != 0;
    if (fleet.name.empty() || listed.device.memory_bytes > fleet.memory_bytes) fleet.name = listed.device.name;
    fleet.memory_bytes = std::max(fleet.memory_bytes, listed.device.memory_bytes);
  }
  if (kind == DeviceKind::cpu && fleet.most == 0)
    fleet = {1, 1, context.host_memory.total_bytes, "the CPUs of this host", false};
  return fleet;
}

class Preflight {
 public:
  explicit Preflight(const PreflightContext& context)
      : context_(context), cpu_(fleet_of(context, DeviceKind::cpu)), cuda_(fleet_of(context, DeviceKind::cuda)) {}

  RunForecast check(const RunConfig& config) {
    RunForecast forecast;
    const Backend backend = decide_backend(wanted_backend(config), config.devices, cuda_.most);
    const Fleet& fleet = backend == Backend::cuda ? cuda_ : cpu_;
    forecast.device = device_kind(backend);
    forecast.device_name = fleet.name;
    forecast.problem = device_problem(config, backend);
    forecast.too_large = !forecast.problem.empty();
    if (forecast.problem.empty()) forecast.problem = fault_problem(config, context_.allow_faults).value_or("");
    const std::string key = speed_key(config);
    RunCheck checked = checker_.check(config, offer(backend), key);
    forecast.parameters = checked.parameters;
    forecast.peak_mem_mib = checked.peak_mem_mib;
    forecast.mflop_per_token = checked.mflop_per_token;
    forecast.warnings = std::move(checked.warnings);
    if (forecast.problem.empty() && checked.problem) {
      forecast.problem = checked.problem->message;
      forecast.too_large = checked.problem->reason == FailureReason::out_of_memory;
    }
    if (checked.shortage) forecast.shortage = checked.shortage->message;
    if (context_.step_ms)
      forecast.estimated_seconds = context_.step_ms(key) * static_cast<double>(config.train.steps) / 1000;
    return forecast;
  }

  std::vector<std::string> notes() const { return checker_.describe_corpora(); }

 private:
  DeviceOffer offer(Backend backend) const {
    if (backend == Backend::cuda) return {backend, cuda_.memory_bytes, 0};
    // While a run of ours has the CPU, what will be available once it has ended is not known.
    return {backend, cpu_.memory_bytes, cpu_.busy ? 0 : context_.host_memory.available_bytes};
  }

  std::string device_problem(const RunConfig& config, Backend backend) const {
    const Fleet& fleet = backend == Backend::cuda ? cuda_ : cpu_;
    const std::string_view kind = device_word(backend);
    if (fleet.most == 0) return fmt::format("backend: no worker has a {} (see `assay devices`)", kind);
    if (config.devices > fleet.most)
      return fmt::format("devices: needs {}, but no worker has more than {}", config.devices, plural(fleet.most, kind));
    return {};
  }

  const PreflightContext& context_;
  const Fleet cpu_;
  const Fleet cuda_;
  RunChecker checker_;
};

// "...: what (run a)", "... (run a and 3 more)": a sentence once, however many runs it concerns.
class Sentences {
 public:
  void add(const std::string& sentence, const std::string& run) {
    const auto [it, is_new] = found_.try_emplace(sentence, order_.size());
    if (is_new)
      order_.push_back({sentence, run, 0});
    else
      ++order_[it->second].more;
  }
  std::vector<std::string> take() const {
    std::vector<std::string> lines;
    for (const Entry& e : order_) {
      if (lines.size() == limits::spec_errors_shown) {
        lines.push_back(fmt::format("{} more like these", order_.size() - lines.size()));
        break;
      }
      lines.push_back(fmt::format("{} (run {}{})", e.text, e.first, and_more(e.more)));
    }
    return lines;
  }

 private:
  struct Entry {
    std::string text, first;
    size_t more;
  };
  std::map<std::string, size_t> found_;
  std::vector<Entry> order_;
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
  return canonical_text(like);
}

Forecast forecast(const ExperimentSpec& spec, const PreflightContext& context) {
  Preflight preflight(context);
  Forecast forecast;
  Sentences warnings;
  forecast.runs.reserve(spec.runs.size());
  for (const PlannedRun& run : spec.runs) {
    const RunForecast& checked = forecast.runs.emplace_back(preflight.check(run.config));
    for (const std::string& warning : checked.warnings) warnings.add(warning, run.name);
    if (!checked.shortage.empty()) warnings.add(checked.shortage, run.name);
  }
  forecast.warnings = warnings.take();
  forecast.notes = preflight.notes();
  return forecast;
}

double total_seconds(const ExperimentSpec& spec, const Forecast& forecast, const PreflightContext& context,
                     const std::vector<size_t>& chosen) {
  std::map<DeviceKind, double> device_seconds;
  double longest = 0;
  for (const size_t i : chosen) {
    const RunForecast& run = forecast.runs[i];
    if (run.estimated_seconds <= 0) return 0;
    device_seconds[run.device] += run.estimated_seconds * spec.runs[i].config.devices;
    longest = std::max(longest, run.estimated_seconds);
  }
  for (const auto& [kind, seconds] : device_seconds)
    longest = std::max(longest, seconds / std::max(1, fleet_of(context, kind).all));
  return longest;
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
