#include "spec/run_outcome.h"

#include <array>

namespace assay {
namespace {

// Tables in the order of the enums; a string_view array is both printer and parser.
constexpr std::array<std::string_view, 8> run_states = {"queued", "held",      "retry_wait", "running",
                                                        "paused", "completed", "failed",     "cancelled"};
constexpr std::array<std::string_view, 6> attempt_states = {"leased",   "starting",    "running",
                                                            "stopping", "unreachable", "ended"};
constexpr std::array<std::string_view, 6> attempt_results = {"none",      "completed", "failed",
                                                             "cancelled", "stopped",   "not_started"};
constexpr std::array<std::string_view, 4> phases = {"load", "plan", "step", "checkpoint"};
constexpr std::array<std::string_view, 13> reasons = {
    "none",         "config_invalid",      "data_error", "plan_error", "out_of_memory", "non_finite",
    "device_error", "communication_error", "timeout",    "stalled",    "worker_lost",   "crashed",
    "internal"};

template <class E, size_t N>
std::optional<E> parse(const std::array<std::string_view, N>& names, std::string_view text) {
  for (size_t i = 0; i < N; ++i)
    if (names[i] == text) return static_cast<E>(i);
  return std::nullopt;
}

}  // namespace

std::string_view to_string(RunState s) {
  return run_states[static_cast<size_t>(s)];
}
std::string_view to_string(AttemptState s) {
  return attempt_states[static_cast<size_t>(s)];
}
std::string_view to_string(AttemptResult r) {
  return attempt_results[static_cast<size_t>(r)];
}
std::string_view to_string(Phase p) {
  return phases[static_cast<size_t>(p)];
}
std::string_view to_string(FailureReason r) {
  return reasons[static_cast<size_t>(r)];
}
std::optional<RunState> parse_run_state(std::string_view t) {
  return parse<RunState>(run_states, t);
}
std::optional<AttemptState> parse_attempt_state(std::string_view t) {
  return parse<AttemptState>(attempt_states, t);
}
std::optional<AttemptResult> parse_attempt_result(std::string_view t) {
  return parse<AttemptResult>(attempt_results, t);
}
std::optional<Phase> parse_phase(std::string_view t) {
  return parse<Phase>(phases, t);
}
std::optional<FailureReason> parse_failure_reason(std::string_view t) {
  return parse<FailureReason>(reasons, t);
}

}  // namespace assay
