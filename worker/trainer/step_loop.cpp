#include "worker/trainer/step_loop.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <new>

#include "base/unique_handle.h"
#include "engine/ops/error.h"
#include "worker/attempt/journal.h"

namespace assay {
namespace {

// A Status has no place in code that throws: the attempt's files are what the run is for, so failing to write them ends
// it.
void require(const Status& status, int64_t step) {
  if (!status.ok()) throw EngineError(FailureReason::internal, status.error().message, "attempt_files", "", step);
}

// What the journal holds must survive a power cut before anything says that nobody will make these steps again: a
// checkpoint behind them, or result.json.
Status sync_journal(const AttemptFolder& folder) {
  const UniqueFd fd(::open(folder.journal().c_str(), O_RDONLY | O_CLOEXEC));
  if (fd && ::fsync(fd.get()) == 0) return {};
  return Error{ErrorCode::internal, fmt::format("cannot sync {}: {}", folder.journal(), std::strerror(errno))};
}

class StepLoop {
 public:
  StepLoop(const StepLoopOptions& options, TrainerRequests& requests, const Clock& clock, const StepLoopHooks& hooks)
      : options_(options), requests_(requests), clock_(clock), hooks_(hooks) {}

  // Completed or cancelled; throws otherwise.
  AttemptResult run();
  int64_t step() const { return step_; }
  double peak_mem_mib() const { return peak_mem_mib_; }

 private:
  void open();
  void one_step();
  void inject_fault();
  void record(const StepMetrics&);
  void checkpoint();
  void enter(Phase);
  void print_notes();
  bool checkpoint_due(int64_t next_step) const;
  bool may_run_ahead() const;
  bool can_checkpoint() const { return !options_.trainer.checkpoint_folder.empty(); }
  int64_t total() const { return options_.config.train.steps; }

  const StepLoopOptions& options_;
  TrainerRequests& requests_;
  const Clock& clock_;
  const StepLoopHooks& hooks_;
  std::unique_ptr<Trainer> trainer_;
  std::optional<JournalWriter> journal_;
  Progress progress_;
  int64_t step_ = -1;      // the step that is being made or was made last
  int64_t saved_at_ = -1;  // next_step() of the newest checkpoint
  double peak_mem_mib_ = 0;
  double mean_dt_ms_ = 0;
  int64_t steps_made_ = 0;
  size_t notes_printed_ = 0;
};

AttemptResult StepLoop::run() {
  open();
  if (trainer_->next_step() >= total()) hooks_.print("nothing is left to do: every step was made by earlier attempts");
  while (trainer_->next_step() < total()) {
    if (requests_.stop && !trainer_->has_step_ahead()) break;
    one_step();
    if (trainer_->has_step_ahead()) continue;
    if (requests_.checkpoint.exchange(false) || checkpoint_due(trainer_->next_step())) checkpoint();
  }
  const bool done = trainer_->next_step() >= total();
  if (!done) {
    hooks_.print(fmt::format("asked to stop: ending before step {}", trainer_->next_step()));
    checkpoint();
    return AttemptResult::cancelled;
  }
  if (options_.config.train.checkpoint_every > 0) checkpoint();
  return AttemptResult::completed;
}

void StepLoop::open() {
  enter(Phase::load);
  if (const auto problem = fault_problem(options_.config, options_.allow_faults))
    throw EngineError(FailureReason::config_invalid, *problem);
  if (options_.folder) {
    auto journal = JournalWriter::open(options_.folder->journal());
    if (!journal.ok()) require(journal.error(), -1);
    journal_.emplace(std::move(journal).value());
    if (const auto left_out = journal_->left_out(); !left_out.empty())
      hooks_.print(
          fmt::format("the journal was begun by an older version, which did not record: {}; neither will this "
                      "attempt",
                      fmt::join(left_out, ", ")));
  }
  trainer_ = hooks_.create(options_.config, options_.trainer);
  progress_.resumed_from_step = trainer_->resumed_from_step();
  saved_at_ = progress_.resumed_from_step;
  print_notes();
  if (progress_.resumed_from_step >= 0)
    hooks_.print(fmt::format("resumed from the checkpoint before step {}", progress_.resumed_from_step));
  enter(Phase::step);
}

void StepLoop::one_step() {
  step_ = trainer_->next_step();
  inject_fault();
  const StepMetrics metrics = trainer_->step(may_run_ahead());
  record(metrics);
  print_notes();
}

void StepLoop::inject_fault() {
  const FaultConfig& fault = options_.config.fault;
  if (fault.kind == FaultKind::none || fault.step != step_ || options_.attempt > fault.attempts) return;
  hooks_.print(fmt::format("injected fault at step {}: {}", step_, to_string(fault.kind)));
  switch (fault.kind) {
    case FaultKind::plan_error:
      throw EngineError(FailureReason::plan_error, "injected fault: no plan for this shape", "inject_fault", "", step_);
    case FaultKind::out_of_memory:
      throw std::bad_alloc();
    case FaultKind::non_finite:
      throw EngineError(FailureReason::non_finite, "injected fault: the loss is not finite", "inject_fault", "loss",
                        step_);
    case FaultKind::crash:
    case FaultKind::exit_code:
    case FaultKind::stall:
      return hooks_.die(fault.kind);
    case FaultKind::none:
      return;
  }
}

void StepLoop::record(const StepMetrics& metrics) {
  peak_mem_mib_ = std::max(peak_mem_mib_, metrics.peak_mem_mib);
  // The first step of a process holds one-time work (captures, page faults), so it counts only until there is another.
  ++steps_made_;
  mean_dt_ms_ = steps_made_ <= 2 ? metrics.dt_ms : 0.9 * mean_dt_ms_ + 0.1 * metrics.dt_ms;
  if (journal_) require(journal_->append(metrics), metrics.step);
  hooks_.print(format_step(metrics, total(), mean_dt_ms_));
}

bool StepLoop::checkpoint_due(int64_t next_step) const {
  const int64_t every = options_.config.train.checkpoint_every;
  return every > 0 && next_step % every == 0;
}

// Whether nothing is to happen between this step and the next.
bool StepLoop::may_run_ahead() const {
  const FaultConfig& fault = options_.config.fault;
  const bool fault_next = fault.kind != FaultKind::none && fault.step == step_ + 1;
  return !requests_.stop && !requests_.checkpoint && !checkpoint_due(step_ + 1) && !fault_next;
}

void StepLoop::checkpoint() {
  if (!can_checkpoint() || steps_made_ == 0 || saved_at_ == trainer_->next_step()) return;
  enter(Phase::checkpoint);
  const int64_t begin = clock_.monotonic_ms();
  if (options_.folder) require(sync_journal(*options_.folder), step_);
  trainer_->save_checkpoint();
  saved_at_ = trainer_->next_step();
  hooks_.print(fmt::format("checkpoint before step {} saved in {:.2f} s", saved_at_,
                           static_cast<double>(clock_.monotonic_ms() - begin) / 1e3));
  enter(Phase::step);
}

void StepLoop::enter(Phase phase) {
  progress_.phase = phase;
  if (options_.folder) require(write_progress(*options_.folder, progress_), step_);
}

void StepLoop::print_notes() {
  const std::vector<std::string> notes = trainer_->notes();
  for (; notes_printed_ < notes.size(); ++notes_printed_) hooks_.print(notes[notes_printed_]);
}

AttemptOutcome failed(FailureReason reason, const std::string& message, int64_t step) {
  AttemptOutcome outcome;
  outcome.result = AttemptResult::failed;
  outcome.reason = reason;
  outcome.error = message;
  outcome.step = step;
  return outcome;
}

AttemptOutcome outcome_of(StepLoop& loop) {
  try {
    AttemptOutcome outcome;
    outcome.result = loop.run();
    outcome.step = loop.step();
    return outcome;
  } catch (const EngineError& e) {
    AttemptOutcome outcome = failed(e.reason, e.what(), e.step >= 0 ? e.step : loop.step());
    outcome.operation = e.operation;
    outcome.tensor = e.tensor;
    return outcome;
  } catch (const std::bad_alloc&) {
    return failed(FailureReason::out_of_memory,
                  "out of memory: an allocation outside the planned arena failed on the host", loop.step());
  } catch (const std::exception& e) {
    return failed(FailureReason::internal, e.what(), loop.step());
  }
}

}  // namespace

AttemptOutcome run_steps(const StepLoopOptions& options, TrainerRequests& requests, const Clock& clock,
                         const StepLoopHooks& hooks) {
  StepLoop loop(options, requests, clock, hooks);
  AttemptOutcome outcome = outcome_of(loop);
  outcome.peak_mem_mib = loop.peak_mem_mib();
  if (!options.folder) return outcome;
  const Status synced = sync_journal(*options.folder);
  if (!synced.ok() && outcome.result == AttemptResult::completed)
    return failed(FailureReason::internal, synced.error().message, outcome.step);
  return outcome;
}

std::string format_step(const StepMetrics& m, int64_t total_steps, double mean_dt_ms) {
  const auto left_s = static_cast<int64_t>(static_cast<double>(total_steps - m.step - 1) * mean_dt_ms / 1e3);
  std::string line = fmt::format(
      "step {}/{} | loss {:.4f} | dt {:.1f} ms | tok/sec {:.0f} | mfu {:.2f} % | lr {:.3f} | grad {:.3f} | "
      "load {:.2f}-{:.2f} | left {}:{:02}:{:02}",
      m.step, total_steps, m.loss, m.dt_ms, m.tok_per_sec, m.mfu, m.lr_scale, m.grad_norm, m.expert_load_min,
      m.expert_load_max, left_s / 3600, left_s / 60 % 60, left_s % 60);
  if (!std::isnan(m.val_loss)) line += fmt::format(" | val {:.4f}", m.val_loss);
  return line;
}

}  // namespace assay
