#include "spec/experiment_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/file.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/utf8.h"
#include "spec/cells.h"
#include "spec/config_reader.h"
#include "spec/run_config_toml.h"
#include "spec/spec_sections.h"

namespace assay {
namespace {

std::string absolute_path(const std::string& path, std::string_view base_folder) {
  namespace fs = std::filesystem;
  if (path.empty() || base_folder.empty()) return path;
  std::string absolute = (fs::path(base_folder) / path).lexically_normal().string();
  if (absolute.size() > 1 && absolute.back() == '/') absolute.pop_back();
  return absolute;
}

// One message for a mistake in [defaults], not one for each of its cells.
class CellProblems {
 public:
  void add(Position at, const std::string& message, const std::string& cell) {
    const auto [it, is_new] = found_.try_emplace({at, message}, Cells{cell, 0});
    if (!is_new) ++it->second.more;
  }
  void report(SpecErrors& errors) const {
    for (const auto& [key, cells] : found_) {
      errors.add(key.first, fmt::format("{} (run {}{})", key.second, cells.first, and_more(cells.more)));
    }
  }

 private:
  struct Cells {
    std::string first;
    size_t more = 0;
  };
  std::map<std::pair<Position, std::string>, Cells> found_;
};

void check_configs(const std::vector<Cell>& cells, int repeats, const ConfigReader& reader, SpecErrors& errors) {
  CellProblems problems;
  for (const Cell& cell : cells) {
    auto found = validate(cell.config);
    if (found.empty() && cell.config.train.seed > limits::seed - repeats + 1)
      found.push_back({"train.seed", fmt::format("train.seed = {} leaves no room for {} repeats; expected at most {}",
                                                 cell.config.train.seed, repeats, limits::seed - repeats + 1)});
    for (const ConfigProblem& problem : found)
      if (const auto at = place_of(problem, cell.settings, reader)) problems.add(*at, problem.message, cell.name);
  }
  problems.report(errors);
}

// What makes re-enqueueing add only what is missing. The name is part of it: an explicit run may repeat a matrix cell.
std::string cell_key(const Cell& cell) {
  RunConfig config = cell.config;
  config.train.seed = 0;
  return sha256_hex(cell.name + "\n" + canonical_text(config)).substr(0, 16);
}

std::string run_name(const Cell& cell, int repeat) {
  return repeat == 1 ? cell.name : fmt::format("{}_repeat{}", cell.name, repeat);
}

// Every cell once, then every cell's second repeat: a whole comparison is there after the first pass.
std::vector<PlannedRun> plan_runs(const std::vector<Cell>& cells, int repeats) {
  std::vector<std::string> keys;
  for (const Cell& cell : cells) keys.push_back(cell_key(cell));
  std::vector<PlannedRun> runs;
  for (int repeat = 1; repeat <= repeats; ++repeat) {
    for (size_t i = 0; i < cells.size(); ++i) {
      runs.push_back(
          {.name = run_name(cells[i], repeat), .cell_key = keys[i], .repeat = repeat, .config = cells[i].config});
      runs.back().config.train.seed += repeat - 1;
    }
  }
  return runs;
}

void check_names(const std::vector<Cell>& cells, int repeats, SpecErrors& errors) {
  for (const Cell& cell : cells) {
    auto problem = name_problem(cell.name);
    const std::string longest = run_name(cell, problem ? 1 : repeats);
    if (!problem) problem = name_problem(longest);
    if (problem) errors.add(cell.at, fmt::format("run name {} {}", in_quotes(longest), *problem));
  }
  std::map<std::string, const Cell*> first;
  for (int repeat = 1; repeat <= repeats; ++repeat) {
    for (const Cell& cell : cells) {
      const auto [it, is_new] = first.emplace(run_name(cell, repeat), &cell);
      const Cell& other = *it->second;
      if (is_new || (repeat > 1 && other.name == cell.name)) continue;  // two cells of one name: said once
      errors.add(std::max(cell.at, other.at),
                 fmt::format("run name {} is used twice, first on line {}; expected a name of its own",
                             in_quotes(it->first), std::min(cell.at, other.at).line));
    }
  }
}

void check_baseline(const SpecHeader& header, const std::vector<PlannedRun>& runs, SpecErrors& errors) {
  if (header.baseline.empty()) return;
  std::vector<std::string_view> names;
  for (const PlannedRun& run : runs) names.push_back(run.name);
  if (std::ranges::find(names, header.baseline) != names.end()) return;
  errors.add(header.baseline_at,
             fmt::format("baseline \"{}\" is not a run of this spec; expected a run name such as \"{}\"{}",
                         header.baseline, names.front(), did_you_mean(nearest(header.baseline, names))));
}

// Equal for specs with the same policies and the same runs in the same order; names hold no newline, so lines are
// unambiguous.
std::string canonical_hash(const ExperimentSpec& spec) {
  std::vector<FailureReason> reasons = spec.retry.on;
  std::ranges::sort(reasons);
  std::string text =
      fmt::format("experiment {}\npriority {}\non_failure {}\nbaseline {}\nretry {} {}", spec.experiment, spec.priority,
                  to_string(spec.on_failure), spec.baseline, spec.retry.max_attempts, spec.retry.backoff_s);
  for (const FailureReason reason : reasons) text += fmt::format(" {}", to_string(reason));
  for (const PlannedRun& run : spec.runs)
    text += fmt::format("\nrun {} {} {}\n{}", run.name, run.cell_key, run.repeat, canonical_text(run.config));
  return sha256_hex(text);
}

ExperimentSpec expand(const SpecSections& sections, std::string_view base_folder, const ConfigReader& reader,
                      SpecErrors& errors) {
  const SpecHeader& header = sections.header;
  ExperimentSpec spec{.experiment = header.experiment,
                      .tag = header.tag,
                      .priority = header.priority,
                      .on_failure = header.on_failure,
                      .retry = header.retry,
                      .baseline = header.baseline};
  std::vector<Cell> cells = expand_cells(sections, errors);
  for (Cell& cell : cells) cell.config.data.path = absolute_path(cell.config.data.path, base_folder);
  check_configs(cells, header.repeats, reader, errors);
  if (static_cast<int64_t>(cells.size()) * header.repeats > limits::runs_per_experiment) {
    errors.add({},
               fmt::format("{} cells times repeats = {} is {} runs; expected at most {}", cells.size(), header.repeats,
                           cells.size() * static_cast<size_t>(header.repeats), limits::runs_per_experiment));
    return spec;
  }
  check_names(cells, header.repeats, errors);
  if (!errors.empty()) return spec;
  spec.runs = plan_runs(cells, header.repeats);
  check_baseline(header, spec.runs, errors);
  return spec;
}

}  // namespace

SpecResult parse_experiment(std::string_view text, std::string_view file, std::string_view base_folder) {
  SpecResult result;
  SpecErrors errors(file);
  if (const auto root = parse_toml(text, errors)) {
    ConfigReader reader(errors);
    const SpecSections sections = read_sections(*root, reader, errors);
    result.spec = expand(sections, base_folder, reader, errors);
  }
  result.errors = errors.take();
  if (!result.ok()) {
    result.spec = {};
    return result;
  }
  result.spec.text = std::string(text);
  result.spec.hash = canonical_hash(result.spec);
  return result;
}

}  // namespace assay
