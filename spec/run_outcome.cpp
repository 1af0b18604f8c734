#include "spec/run_outcome.h"

#include <fmt/format.h>

#include "base/process.h"

namespace assay {

std::string_view error_headline(std::string_view error) {
  return error.substr(0, error.find_first_of("\r\n"));
}

std::string_view error_details(std::string_view error) {
  const size_t line_end = error.find('\n');
  return line_end == std::string_view::npos ? std::string_view() : error.substr(line_end + 1);
}

std::string failure_text(std::string_view reason, std::string_view error) {
  const std::string_view headline = error_headline(error);
  return fmt::format("{}{}{}", reason, headline.empty() ? "" : ": ", headline);
}

std::string outcome_text(const AttemptOutcome& outcome) {
  if (outcome.result != AttemptResult::failed) return std::string(to_string(outcome.result));
  return "failed: " + failure_text(to_string(outcome.reason), outcome.error);
}

std::vector<OutcomeFact> failure_facts(const AttemptOutcome& outcome) {
  std::vector<OutcomeFact> facts;
  if (!outcome.operation.empty()) facts.push_back({"operation", outcome.operation, true});
  if (!outcome.tensor.empty()) facts.push_back({"tensor", outcome.tensor, true});
  facts.push_back({"step", outcome.step < 0 ? "before the first" : fmt::format("{}", outcome.step)});
  if (outcome.signal != 0)
    facts.push_back({"signal", signal_name(outcome.signal)});
  else if (outcome.exit_code >= 0)
    facts.push_back({"exit code", fmt::format("{}", outcome.exit_code)});
  return facts;
}

}  // namespace assay
