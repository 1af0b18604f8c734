#include "engine/trainer/run_trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/clock.h"
#include "engine/ops/error.h"
#include "engine/optim/optimizer.h"
#include "engine/trainer/resume.h"

namespace assay {
namespace {

constexpr int64_t steps_until_steady = 6;  // FP8 calibrates for three steps, then the graph is captured
constexpr double peak_flops = 989.5e12;    // dense BF16 of an H100 or H200 SXM: docs/engine.md, "What is recorded of a step"

}  // namespace

RunTrainer::RunTrainer(const RunConfig& config, const TrainerOptions& options, Backend backend,
                       std::unique_ptr<Ops> ops, int rank, int world_size)
    : config_(config),
      options_(options),
      ops_(std::move(ops)),
      world_size_(world_size),
      device_(config_, backend, *ops_),
      batches_(config_, device_.plan().shape, rank, world_size) {
  for (auto& readback : readbacks_) readback = device_.model().make_readback();
  device_.model().initialise(config_.train.seed);
  for (const std::string& warning : schedule_warnings(config_.train)) start_notes_.push_back("warning: " + warning);
  if (options_.checkpoint_folder.empty()) return;
  corpus_ = batches_.corpus_identity();
  if (!options_.resume) return;
  if (const auto point =
          load_run(options_.checkpoint_folder, options_.owner, config_, device_, *ops_, corpus_, start_notes_)) {
    next_step_ = resumed_from_ = point->next_step;
    device_.model().continue_at(next_step_);
    batches_.seek(point->cursor);
    if (batches_.cursor() != point->cursor)
      throw EngineError(FailureReason::data_error,
                        fmt::format("checkpoint {} stands at token {} of its text, but {} holds {}: it has seen other "
                                    "text; put that back, or remove the folder {} to start again",
                                    point->folder, point->cursor.position, config_.data.path, batches_.train_tokens(),
                                    options_.checkpoint_folder),
                        "resume");
    start_notes_.push_back(fmt::format("resumed at step {} from {}", next_step_, point->folder));
  }
}

StepMetrics RunTrainer::step(bool run_ahead) {
  const OpsCounters before = ops_->counters();
  if (started_.empty()) started_.push_back(start_step(next_step_));
  if (run_ahead && may_run_ahead()) started_.push_back(start_step(next_step_ + 1));
  StartedStep mine = started_.front();
  started_.pop_front();
  const StepResults results = finish_step(mine);
  StepMetrics m = metrics_of(mine, results);
  if (validation_due(next_step_)) m.val_loss = validation_loss();
  m.unix_ms = SystemClock().unix_ms();
  ++next_step_;
  ++steps_made_;
  last_launches_ = ops_->counters().launches - before.launches;
  last_host_syncs_ = ops_->counters().host_syncs - before.host_syncs;
  return m;
}

bool RunTrainer::may_run_ahead() const {
  return ops_->runs_ahead() && !plan().shape.eager && started_.size() < readbacks_.size() &&
         next_step_ + 1 < config_.train.steps && !validation_due(next_step_);
}

// Hands a whole step to the device. Whatever goes wrong in it is found there, and then it updates nothing.
RunTrainer::StartedStep RunTrainer::start_step(int64_t step) {
  StartedStep s{.step = step,
                .start = batches_.cursor(),
                .begin = ops_->mark(),
                .readback = readbacks_[static_cast<size_t>(step) % readbacks_.size()].get()};
  Model& model = device_.model();
  model.begin_step();
  const double grad_scale = 1.0 / static_cast<double>(config_.train.total_batch_tokens);
  for (int64_t i = grad_accum(config_); i > 0; --i) {
    batches_.next_train();
    model.micro_step(batches_.tokens(), batches_.targets(), grad_scale);
  }
  model.end_step();
  optimizer_step(model.weights(), config_, step, config_.precision == Precision::fp32, model.verdict(), *ops_);
  model.read_results(*s.readback);
  s.end = ops_->mark();
  return s;
}

void RunTrainer::wait_for_all() {
  if (!started_.empty()) ops_->wait(started_.back().end);
  started_.clear();
}

// The results of a step. One that ran out of static capacity, and what was started behind it, has updated nothing and
// is made again with more.
StepResults RunTrainer::finish_step(StartedStep& s) {
  while (true) {
    ops_->wait(s.end);
    const StepResults results = s.readback->results();
    const auto exceeded = over_capacity(results, plan().shape);
    if (!exceeded) {
      if ((results.verdict & step_not_finite) != 0) fail_non_finite(s, results);
      return results;
    }
    wait_for_all();
    batches_.seek(s.start);
    device_.grow(*exceeded, s.step);
    s = start_step(s.step);
  }
}

double RunTrainer::mean_loss(const StepResults& results) const {
  return results.loss_sum / static_cast<double>(config_.train.total_batch_tokens);
}

StepMetrics RunTrainer::metrics_of(const StartedStep& s, const StepResults& results) {
  StepMetrics m;
  m.step = s.step;
  m.lr_scale = lr_scale(config_.train, s.step);
  m.loss = mean_loss(results);
  m.grad_norm = std::sqrt(std::accumulate(results.square_sums.begin(), results.square_sums.end(), 0.0));
  expert_loads(results, m);
  m.dt_ms = ops_->elapsed_ms(s.begin, s.end);
  m.tok_per_sec = static_cast<double>(config_.train.total_batch_tokens) * 1000.0 / m.dt_ms;
  m.mfu = 100.0 * plan().flops_per_token * m.tok_per_sec / (world_size_ * peak_flops);
  m.peak_mem_mib = peak_mem_mib();
  m.tokens = (s.step + 1) * config_.train.total_batch_tokens;
  m.flops = plan().flops_per_token * static_cast<double>(m.tokens);
  return m;
}

// What the backend counted; where it does not count, what was planned.
double RunTrainer::peak_mem_mib() const {
  const int64_t counted = ops_->counters().device_bytes_peak;
  return counted > 0 ? static_cast<double>(counted) / 1048576.0 : device_.peak_mem_mib();
}

void RunTrainer::fail_non_finite(const StartedStep& s, const StepResults& results) {
  wait_for_all();
  const char* advice = "Lower the learning rates, or try another precision to see whether its range is the cause";
  const double loss = mean_loss(results);
  if (!std::isfinite(loss)) {
    const std::string tensor = first_non_finite(s.start);
    throw EngineError(FailureReason::non_finite,
                      fmt::format("step {}: the loss is {}; the first tensor that is not finite is {}. {}", s.step,
                                  loss, tensor, advice),
                      "forward", tensor, s.step);
  }
  const auto bad = std::find_if_not(results.square_sums.begin(), results.square_sums.end(),
                                    [](double x) { return std::isfinite(x); });
  const auto at = static_cast<size_t>(bad - results.square_sums.begin());
  const std::string tensor = "gradient " + device_.model().weights().all().at(at).spec.name;
  throw EngineError(
      FailureReason::non_finite,
      fmt::format("step {}: {} is not finite, although the loss is; nothing was updated. {}", s.step, tensor, advice),
      "backward", tensor, s.step);
}

// Replays a step's micro-batches, from weights that it has not updated, to find where the first infinity or NaN came
// up.
std::string RunTrainer::first_non_finite(const LoaderCursor& start) {
  batches_.seek(start);
  device_.model().weights().prepare(*ops_);
  for (int64_t i = grad_accum(config_); i > 0; --i) {
    batches_.next_train();
    std::string tensor = device_.model().first_non_finite(batches_.tokens(), batches_.targets());
    if (!tensor.empty()) return tensor;
  }
  return "loss";
}

void RunTrainer::expert_loads(const StepResults& results, StepMetrics& m) const {
  const ModelShape& s = plan().shape;
  const double micro_batches = static_cast<double>(grad_accum(config_));
  const double fair = micro_batches * static_cast<double>(s.top_k * s.tokens) / static_cast<double>(s.experts);
  const auto [least, most] = std::minmax_element(results.expert_rows.begin(), results.expert_rows.end());
  m.expert_load_min = static_cast<double>(*least) / fair;
  m.expert_load_max = static_cast<double>(*most) / fair;
}

bool RunTrainer::validation_due(int64_t step) const {
  if (config_.train.val_every <= 0) return false;
  return (step + 1) % config_.train.val_every == 0 || step + 1 == config_.train.steps;
}

double RunTrainer::validation_loss() {
  device_.model().weights().prepare(*ops_);  // the optimizer has moved the masters
  batches_.start_validation();
  double sum = 0;
  for (int64_t i = 0; i < batches_.validation_batches(); ++i) {
    batches_.next_validation();
    sum += device_.evaluate(batches_.tokens(), batches_.targets(), next_step_);
  }
  const double loss = sum / static_cast<double>(batches_.validation_batches() * plan().shape.tokens);
  if (std::isfinite(loss)) return loss;
  const std::string tensor = device_.model().first_non_finite(batches_.tokens(), batches_.targets());
  throw EngineError(FailureReason::non_finite,
                    fmt::format("validation after step {}: the loss is {}; not finite in its last micro-batch: {}",
                                next_step_, loss, tensor.empty() ? "nothing" : tensor),
                    "validation", tensor, next_step_);
}

void RunTrainer::save_checkpoint() {
  if (options_.checkpoint_folder.empty())
    throw EngineError(FailureReason::internal, "save_checkpoint without a checkpoint folder", "checkpoint");
  if (has_step_ahead()) throw EngineError(FailureReason::internal, "save_checkpoint with a step ahead", "checkpoint");
  save_run(options_.checkpoint_folder, options_.owner, config_, device_, *ops_, next_step_,
           {batches_.cursor(), corpus_});
}

std::vector<std::string> RunTrainer::notes() const {
  const RunPlan& p = plan();
  const ModelShape& s = p.shape;
  std::vector<std::string> notes = start_notes_;
  notes.push_back(
      fmt::format("plan: {} layers, d = {}, h = {}, {} experts (top {}), {:.1f}M parameters, {:.1f} MFLOP "
                  "per token, {} micro-batches of {} tokens per step",
                  s.layers, s.d, s.h, s.experts, s.top_k, static_cast<double>(p.parameters) / 1e6,
                  p.flops_per_token / 1e6, grad_accum(config_), s.tokens));
  notes.push_back(fmt::format("memory: arena {:.1f} MiB in {} buffers, {:.1f} MiB with the backend's own",
                              static_cast<double>(p.arena_bytes) / 1048576.0, p.buffers.size(),
                              device_.peak_mem_mib()));
  notes.push_back(fmt::format("data: {} training tokens, {} validation micro-batches", batches_.train_tokens(),
                              batches_.validation_batches()));
  if (s.capacity > 0) {
    const double used = static_cast<double>(s.top_k * s.tokens) / static_cast<double>(s.routed_rows);
    notes.push_back(fmt::format("static: capacity {} rows per expert, {:.1f} % padding, {} captures", s.capacity,
                                100.0 * (1.0 - used), 1 + device_.recaptures()));
  }
  if (!device_.tiling().empty()) notes.push_back(device_.tiling());
  if (const OpsCounters c = ops_->counters(); c.captures > 0)
    notes.push_back(fmt::format("graph: {} captured in {:.3f} s", c.captures, c.capture_s));
  if (last_launches_ > 0 && steps_made_ >= steps_until_steady)
    notes.push_back(fmt::format("steps: {} launches and {} host syncs each", last_launches_, last_host_syncs_));
  return notes;
}

}  // namespace assay
