#include "worker/attempt_end.h"

#include <fmt/format.h>

#include <csignal>
#include <cstring>

#include "worker/trainer/exit_code.h"

namespace assay {
namespace {

AttemptOutcome failed(FailureReason reason, std::string error) {
  AttemptOutcome outcome;
  outcome.result = AttemptResult::failed;
  outcome.reason = reason;
  outcome.error = std::move(error);
  return outcome;
}

AttemptOutcome stopped(const EndFacts& facts) {
  const std::string how = facts.killed_by_us ? "; it did not end when asked to and was killed" : "";
  switch (find_word<StopReason>(facts.stop_reason).value_or(StopReason::none)) {
    case StopReason::cancelled:
      return {.result = AttemptResult::cancelled, .error = "cancelled" + how};
    case StopReason::stalled:
      return failed(FailureReason::stalled,
                    fmt::format("no progress in phase {} within its deadline{}", to_string(facts.phase), how));
    case StopReason::timeout:
      return failed(FailureReason::timeout,
                    fmt::format("still running after its time limit of {} s{}", facts.timeout_s, how));
    case StopReason::worker_stopped:
      return {.result = AttemptResult::stopped, .error = "stopped with its worker" + how};
    case StopReason::none:
      break;
  }
  return failed(
      FailureReason::internal,
      fmt::format("told to stop for a reason that this worker does not know, \"{}\": the daemon is of another "
                  "version{}",
                  facts.stop_reason, how));
}

AttemptOutcome from_exit(const ExitStatus& exit) {
  if (exit.signal == SIGKILL)
    return failed(FailureReason::crashed,
                  "the trainer was killed by SIGKILL, not by Assay: possibly out of memory on this host (the kernel "
                  "log says so)");
  if (exit.signal != 0)
    return failed(FailureReason::crashed, fmt::format("the trainer was killed by {}", signal_name(exit.signal)));
  if (const auto reason = reason_of_exit_code(exit.exit_code))
    return failed(
        *reason,
        fmt::format("the trainer ended with exit code {} ({}) and left no result; the log's last lines say more",
                    exit.exit_code, to_string(*reason)));
  return failed(FailureReason::internal,
                fmt::format("the trainer ended with exit code {} and left no result; the log's last lines say more",
                            exit.exit_code));
}

AttemptOutcome without_result(const EndFacts& facts) {
  if (facts.exit) return from_exit(*facts.exit);
  if (facts.host_restarted)
    return failed(FailureReason::worker_lost, "the host was restarted while the run was going on");
  if (facts.died_unseen)
    return failed(FailureReason::worker_lost, "worker and trainer both died; how the trainer ended is not known");
  return failed(
      FailureReason::crashed,
      "the trainer ended and left no result; its exit status is not known, because the worker had been restarted");
}

AttemptOutcome choose(const EndFacts& facts) {
  if (facts.result && facts.result->result == AttemptResult::completed) return *facts.result;
  if (!facts.stop_reason.empty()) return stopped(facts);
  if (facts.result && facts.result->result == AttemptResult::cancelled)
    return failed(FailureReason::worker_lost, "the trainer was asked to end by someone other than Assay (SIGTERM)");
  if (facts.result) return *facts.result;
  AttemptOutcome outcome = without_result(facts);
  if (!facts.result_problem.empty()) outcome.error += "\n" + facts.result_problem;
  return outcome;
}

}  // namespace

AttemptOutcome describe_end(const EndFacts& facts) {
  AttemptOutcome outcome = choose(facts);
  if (facts.exit) {
    outcome.exit_code = facts.exit->exit_code;
    outcome.signal = facts.exit->signal;
  }
  if (outcome.result == AttemptResult::failed && outcome.log_tail.empty()) outcome.log_tail = facts.log_tail;
  return outcome;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  const char* text = ::sigdescr_np(signal);
  if (!name || !text) return fmt::format("signal {}", signal);
  return fmt::format("SIG{} ({})", name, text);
}

}  // namespace assay
