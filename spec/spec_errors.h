// Collects what is wrong in a spec file, so that many mistakes are reported at once and in the order of the file.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spec/experiment_spec.h"

namespace assay {

struct Position {
  int line = 0;  // 1-based; 0 = the whole file
  int column = 0;
  auto operator<=>(const Position&) const = default;
};

class SpecErrors {
 public:
  explicit SpecErrors(std::string_view file) : file_(file) {}
  void add(Position at, std::string message);
  bool empty() const { return errors_.empty(); }
  // In file order, the first limits::spec_errors_shown of them; a last entry says how many more there are.
  std::vector<SpecError> take();

 private:
  std::string file_;
  std::vector<SpecError> errors_;
};

// The candidate nearest to `text` by edit distance (a swap of neighbours counts 1), if it is near enough to be meant:
// about a third of the longer of the two may differ.
std::optional<std::string_view> nearest(std::string_view text, std::span<const std::string_view> candidates);

// `; did you mean "x"?`, or nothing.
std::string did_you_mean(std::optional<std::string_view> candidate);

// "fp32, bf16, fp8_noexperts or fp8_experts"
std::string one_of(std::span<const std::string_view> values);

// What is wrong with a name of an experiment, tag or run, if anything: "starts with '.'; expected ...".
std::optional<std::string> name_problem(std::string_view name);

}  // namespace assay
