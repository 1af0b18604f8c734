// The words for how things stand and how they ended. Source: QUEUE design, "States"; PRODUCT design, "What a run can
// end as".
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace assay {

enum class RunState { queued, held, retry_wait, running, paused, completed, failed, cancelled };
enum class AttemptState { leased, starting, running, stopping, unreachable, ended };
// stopped: it ended with its worker, which was told to (`assay down`): nobody's failure. not_started: its trainer never
// ran (the lease was refused, or given back): no more than an event, it has no number among the attempts of its run.
enum class AttemptResult { none, completed, failed, cancelled, stopped, not_started };

// What part of its work an attempt is in; each has its own progress deadline (base/limits.h).
enum class Phase { load, plan, step, checkpoint };

enum class FailureReason {
  none,
  config_invalid,
  data_error,
  plan_error,
  out_of_memory,
  non_finite,
  device_error,
  communication_error,
  timeout,
  stalled,
  worker_lost,
  crashed,
  internal,
};

std::string_view to_string(RunState);
std::string_view to_string(AttemptState);
std::string_view to_string(AttemptResult);
std::string_view to_string(Phase);
std::string_view to_string(FailureReason);
std::optional<RunState> parse_run_state(std::string_view);
std::optional<AttemptState> parse_attempt_state(std::string_view);
std::optional<AttemptResult> parse_attempt_result(std::string_view);
std::optional<Phase> parse_phase(std::string_view);
std::optional<FailureReason> parse_failure_reason(std::string_view);

inline bool is_terminal(RunState s) {
  return s == RunState::completed || s == RunState::failed || s == RunState::cancelled;
}

// How one attempt ended, as the trainer and the worker saw it.
struct AttemptOutcome {
  AttemptResult result = AttemptResult::none;
  FailureReason reason = FailureReason::none;
  std::string error;      // one line first, details after
  std::string operation;  // engine errors: the op that failed
  std::string tensor;     // engine errors: the first tensor concerned
  int64_t step = -1;      // the step it happened in, -1 = before the first
  int exit_code = -1;     // -1 = did not exit
  int signal = 0;         // 0 = no signal
  double peak_mem_mib = 0;
  std::string log_tail;
};

}  // namespace assay
