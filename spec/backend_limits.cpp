#include "spec/backend_limits.h"

#include <fmt/format.h>

namespace assay {

std::string Bound::rule() const {
  if (only[0] != 0) return fmt::format("{} or {}", only[0], only[1]);
  const std::string at_most = most == INT64_MAX ? "" : fmt::format("at most {}", most);
  const std::string multiples = multiple == 1 ? "" : fmt::format("multiples of {}", multiple);
  if (at_most.empty() && multiples.empty()) return "any";
  return at_most + (at_most.empty() || multiples.empty() ? "" : ", ") + multiples;
}

std::string refusal(const BackendLimits& backend, RunSize size, int64_t value) {
  const Word& word = words_of(size)[static_cast<size_t>(size)];
  const std::string from = word.meaning.empty() ? "" : fmt::format(" ({})", word.meaning);
  return fmt::format("{}{} = {}; {} takes {}", word.text, from, value, backend.name, backend[size].rule());
}

std::optional<std::string> size_problem(const BackendLimits& backend, const RunSizes& sizes) {
  for (size_t i = 0; i < sizes.size(); ++i)
    if (!backend.bounds[i].takes(sizes[i])) return refusal(backend, static_cast<RunSize>(i), sizes[i]);
  return std::nullopt;
}

std::string fp32_refusal() {
  return "precision = fp32 is the reference of the CPU backend; expected backend = \"cpu\" or \"auto\", or another "
         "precision";
}

}  // namespace assay
