// Exit codes of assay-trainer: a contract with people's scripts and with the worker (docs: assay-trainer --help).
#pragma once

#include <fmt/format.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "spec/run_outcome.h"

namespace assay {

inline constexpr int exit_completed = 0;
inline constexpr int exit_cancelled = 9;
inline constexpr std::array<std::pair<FailureReason, int>, 8> failure_exit_codes = {{
    {FailureReason::internal, 1},
    {FailureReason::config_invalid, 2},
    {FailureReason::data_error, 3},
    {FailureReason::plan_error, 4},
    {FailureReason::out_of_memory, 5},
    {FailureReason::non_finite, 6},
    {FailureReason::device_error, 7},
    {FailureReason::communication_error, 8},
}};
// "0 completed, 1 internal, ..., 9 cancelled": for --help.
inline std::string exit_codes_text() {
  std::string text = fmt::format("{} {}", exit_completed, to_string(AttemptResult::completed));
  for (const auto& [reason, code] : failure_exit_codes) text += fmt::format(", {} {}", code, to_string(reason));
  return text + fmt::format(", {} {}", exit_cancelled, to_string(AttemptResult::cancelled));
}

inline int exit_code_of(const AttemptOutcome& outcome) {
  if (outcome.result == AttemptResult::completed) return exit_completed;
  if (outcome.result == AttemptResult::cancelled) return exit_cancelled;
  for (const auto& [reason, code] : failure_exit_codes)
    if (reason == outcome.reason) return code;
  return 1;
}

// The failure an exit code stands for; nothing for 0, 9 and codes outside the contract.
inline std::optional<FailureReason> reason_of_exit_code(int code) {
  for (const auto& [reason, known] : failure_exit_codes)
    if (known == code) return reason;
  return std::nullopt;
}

}  // namespace assay
