// The loop of assay-trainer: drives a Trainer to the end of its run, keeps the attempt's files, and turns whatever
// happens into an AttemptOutcome. Works with and without an attempt folder (alone, with no worker and no daemon).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "engine/trainer/trainer.h"
#include "spec/run_config.h"
#include "spec/run_outcome.h"
#include "worker/attempt/attempt_files.h"

namespace assay {

// What signals asked for; set by handlers (lock-free, so async-signal-safe) and looked at between steps.
struct TrainerRequests {
  std::atomic<bool> stop{false};        // SIGTERM, SIGINT: finish the step, save a checkpoint, end as cancelled
  std::atomic<bool> checkpoint{false};  // SIGUSR1
};

struct StepLoopOptions {
  RunConfig config;
  TrainerOptions trainer;
  std::optional<AttemptFolder> folder;  // empty = alone
  int64_t attempt = 1;                  // 1-based, for fault hooks
  bool allow_faults = false;
};

// What the loop needs from outside; tests replace all of it.
struct StepLoopHooks {
  std::function<std::unique_ptr<Trainer>(const RunConfig&, const TrainerOptions&)> create;
  std::function<void(const std::string&)> print;  // one line without its newline
  std::function<void(FaultKind)> die;             // crash, exit_code, stall: does not return (in tests it throws)
};

// Never throws what the engine throws. Writes journal.bin and progress.json into the folder, but not result.json: that
// is the caller's last act.
AttemptOutcome run_steps(const StepLoopOptions&, TrainerRequests&, const Clock&, const StepLoopHooks&);

// "step 12/140 | loss 4.1234 | dt 123.4 ms | tok/sec 12345 | mfu 1.23 % | lr 1.00 | grad 0.512 | load 0.91-1.12 | left
// 0:12:33"
std::string format_step(const StepMetrics&, int64_t total_steps, double mean_dt_ms);

}  // namespace assay
