#include "engine/trainer/run_trainer.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/clock.h"
#include "engine/ops/error.h"
#include "engine/optim/optimizer.h"
#include "engine/trainer/resume.h"

namespace assay {
namespace {

constexpr double peak_flops = 989.5e12;  // dense BF16 of an H100 or H200 SXM: ENGINE design, "Metrics of a step"

double elapsed_ms(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

}  // namespace

RunTrainer::RunTrainer(const RunConfig& config, const TrainerOptions& options, Backend backend,
                       std::unique_ptr<Ops> ops, int rank, int world_size)
    : config_(config),
      options_(options),
      ops_(std::move(ops)),
      world_size_(world_size),
      device_(config_, backend, *ops_),
      batches_(config_, device_.plan().shape, rank, world_size) {
  device_.model().initialise(config_.train.seed);
  if (options_.checkpoint_folder.empty() || !options_.resume) return;
  if (const auto point = load_run(options_.checkpoint_folder, config_, device_, *ops_, start_notes_)) {
    next_step_ = resumed_from_ = point->next_step;
    batches_.seek(point->cursor);
    start_notes_.push_back(fmt::format("resumed at step {} from {}", next_step_, point->folder));
  }
}

StepMetrics RunTrainer::step() {
  const auto begin = std::chrono::steady_clock::now();
  const LoaderCursor start = batches_.cursor();
  StepMetrics m;
  m.step = next_step_;
  m.lr_scale = lr_scale(config_.train, next_step_);
  micro_steps();
  m.loss = device_.model().loss_sum() / static_cast<double>(config_.train.total_batch_tokens);
  if (!std::isfinite(m.loss)) fail_non_finite(m.loss, start);
  m.grad_norm = gradient_norm();
  expert_loads(m);
  device_.model().update_state();
  optimizer_step(device_.model().weights(), config_, next_step_, config_.precision == Precision::fp32, *ops_);
  m.dt_ms = elapsed_ms(begin);
  m.tok_per_sec = static_cast<double>(config_.train.total_batch_tokens) * 1000.0 / m.dt_ms;
  m.mfu = 100.0 * plan().flops_per_token * m.tok_per_sec / (world_size_ * peak_flops);
  if (validation_due()) m.val_loss = validation_loss();
  m.peak_mem_mib = device_.peak_mem_mib();
  m.unix_ms = SystemClock().unix_ms();
  ++next_step_;
  return m;
}

void RunTrainer::micro_steps() {
  device_.model().begin_step();
  const double grad_scale = 1.0 / static_cast<double>(config_.train.total_batch_tokens);
  for (int64_t i = grad_accum(config_); i > 0; --i) {
    batches_.next_train();
    device_.micro_step(batches_.tokens(), batches_.targets(), grad_scale, next_step_);
  }
}

double RunTrainer::gradient_norm() {
  const std::vector<double> sums = device_.model().gradient_square_sums();
  double total = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    total += sums[i];
    if (std::isfinite(sums[i])) continue;
    const std::string tensor = "gradient " + device_.model().weights().all()[i].spec.name;
    throw EngineError(FailureReason::non_finite,
                      fmt::format("step {}: {} is not finite, although the loss is; nothing was updated. Lower the "
                                  "learning rates, or try another precision to see whether its range is the cause",
                                  next_step_, tensor),
                      "backward", tensor, next_step_);
  }
  return std::sqrt(total);
}

// Replays the step's micro-batches to find where the first infinity or NaN came up.
void RunTrainer::fail_non_finite(double loss, const LoaderCursor& start) {
  batches_.seek(start);
  std::string tensor;
  for (int64_t i = grad_accum(config_); i > 0 && tensor.empty(); --i) {
    batches_.next_train();
    tensor = device_.model().first_non_finite(batches_.tokens(), batches_.targets());
  }
  if (tensor.empty()) tensor = "loss";
  throw EngineError(
      FailureReason::non_finite,
      fmt::format("step {}: the loss is {}; the first tensor that is not finite is {}. Lower the learning "
                  "rates, or try another precision to see whether its range is the cause",
                  next_step_, loss, tensor),
      "forward", tensor, next_step_);
}

void RunTrainer::expert_loads(StepMetrics& m) const {
  const ModelShape& s = plan().shape;
  const std::vector<int64_t>& rows = device_.model().expert_rows();
  const double micro_batches = static_cast<double>(grad_accum(config_));
  const double fair = micro_batches * static_cast<double>(s.top_k * s.tokens) / static_cast<double>(s.experts);
  const auto [least, most] = std::minmax_element(rows.begin(), rows.end());
  m.expert_load_min = static_cast<double>(*least) / fair;
  m.expert_load_max = static_cast<double>(*most) / fair;
}

bool RunTrainer::validation_due() const {
  if (config_.train.val_every <= 0) return false;
  return (next_step_ + 1) % config_.train.val_every == 0 || next_step_ + 1 == config_.train.steps;
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
  save_run(options_.checkpoint_folder, config_, device_, *ops_, next_step_, batches_.cursor());
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
  return notes;
}

}  // namespace assay
