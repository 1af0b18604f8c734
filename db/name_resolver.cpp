#include "db/name_resolver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "base/text.h"
#include "spec/spec_errors.h"

namespace assay {

namespace {

constexpr size_t candidates_shown = 5;

std::vector<std::string> split_name(std::string_view name) {
  std::vector<std::string> parts;
  while (true) {
    const size_t slash = name.find('/');
    parts.emplace_back(name.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    name.remove_prefix(slash + 1);
  }
}

Result<std::vector<std::string>> words(Statement& rows) {
  std::vector<std::string> found;
  while (true) {
    ASSAY_ASSIGN(const bool row, rows.step());
    if (!row) return found;
    found.push_back(rows.text(0));
  }
}

// What a name stands for, the newest first.
struct Meant {
  std::vector<int64_t> ids;
  std::vector<std::string> full_names;
};
Result<Meant> what_is_meant(Statement& rows) {
  Meant meant;
  while (true) {
    ASSAY_ASSIGN(const bool row, rows.step());
    if (!row) return meant;
    meant.ids.push_back(rows.integer(0));
    meant.full_names.push_back(rows.text(1));
  }
}

// `; did you mean "x"?`, or nothing.
std::string near(const std::string& text, const std::vector<std::string>& candidates) {
  return did_you_mean(nearest(text, std::vector<std::string_view>(candidates.begin(), candidates.end())));
}

}  // namespace

Error NameResolver::no_experiment(const std::string& tag) const {
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT e.name || '/' || e.tag FROM experiments e ORDER BY e.id DESC LIMIT ?"));
  rows.bind(limits::names_compared);
  ASSAY_ASSIGN(const std::vector<std::string> full_names, words(rows));
  const auto error = [&](const std::string& hint) {
    return Error{ErrorCode::not_found, fmt::format("no experiment has the tag \"{}\"{}", tag, hint)};
  };
  if (full_names.empty()) return error("; there is no experiment yet");
  const bool plain = tag.find('/') == std::string::npos;
  std::vector<std::string> candidates, of_experiment;
  for (const std::string& full : full_names) {
    const size_t slash = full.find('/');
    candidates.push_back(plain ? full.substr(slash + 1) : full);
    if (full.substr(0, slash) == tag) of_experiment.push_back(full);
  }
  if (!of_experiment.empty())
    return error(
        fmt::format("; it is the name of an experiment, tagged {}", first_of(of_experiment, candidates_shown)));
  if (const auto meant = near(tag, candidates); !meant.empty()) return error(meant);
  return error(
      fmt::format("; there {} {}", full_names.size() == 1 ? "is" : "are", first_of(full_names, candidates_shown)));
}

Error NameResolver::no_run(const std::string& name, const std::vector<std::string>& parts,
                           int64_t experiment_id) const {
  if (parts.size() <= 2 && experiment_id == 0 && experiment(name).ok())
    return Error{ErrorCode::not_found,
                 fmt::format("no run is named \"{0}\": it is a tag; `assay ls --tag {0}` lists its runs", name)};
  if (parts.size() > 1) {
    const auto named = experiment(name.substr(0, name.rfind('/')));
    if (!named.ok() && named.error().code == ErrorCode::not_found) return named.error();
    if (named.ok() && experiment_id == 0) experiment_id = *named;
  }
  std::string where;
  if (experiment_id != 0) {
    ASSAY_ASSIGN(const ExperimentRow found, experiments_.get(experiment_id));
    where = fmt::format(" in {}/{}", found.name, found.tag);
  }
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT DISTINCT name FROM (SELECT r.name FROM runs r WHERE ?1 = 0 OR "
                                      "r.experiment_id = ?1 ORDER BY r.id DESC LIMIT ?2)"));
  rows.bind(experiment_id, limits::names_compared);
  ASSAY_ASSIGN(const std::vector<std::string> candidates, words(rows));
  const std::string meant = near(parts.back(), candidates);
  return Error{ErrorCode::not_found, fmt::format("no run is named \"{}\"{}{}", name, where,
                                                 meant.empty() ? "; `assay ls` shows the names" : meant)};
}

Result<int64_t> NameResolver::experiment(const std::string& tag) const {
  const auto parts = split_name(tag);
  if (parts.size() > 2)
    return Error{ErrorCode::invalid_argument,
                 fmt::format("\"{}\" has too many parts: a tag is \"tag\" or \"experiment/tag\"", tag)};
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT e.id, e.name || '/' || e.tag FROM experiments e WHERE e.tag = ?1 AND "
                                      "(?2 = '' OR e.name = ?2) ORDER BY e.id DESC"));
  const std::string name = parts.size() == 2 ? parts[0] : "";
  rows.bind(parts.back(), name);
  ASSAY_ASSIGN(const Meant meant, what_is_meant(rows));
  if (meant.ids.size() == 1) return meant.ids.front();
  if (meant.ids.empty()) return no_experiment(tag);
  return Error{ErrorCode::invalid_argument,
               fmt::format("the tag \"{}\" means several experiments: {}; give the full name", tag,
                           fmt::join(meant.full_names, ", "))};
}

Result<int64_t> NameResolver::run(const std::string& name, int64_t experiment_id) const {
  const auto parts = split_name(name);
  if (parts.size() > 3)
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("\"{}\" has too many parts: a run is \"name\", \"tag/name\" or \"experiment/tag/name\"", name)};
  const std::string tag = parts.size() >= 2 ? parts[parts.size() - 2] : "";
  const std::string experiment = parts.size() == 3 ? parts[0] : "";
  // A plain name means the newest experiment that has it.
  ASSAY_ASSIGN(
      auto rows,
      db_.prepare("SELECT r.id, e.name || '/' || e.tag || '/' || r.name FROM runs r CROSS JOIN experiments e ON "
                  "e.id = r.experiment_id WHERE r.name = ?1 AND (?2 = '' OR e.tag = ?2) AND (?3 = '' OR "
                  "e.name = ?3) AND (?4 = 0 OR e.id = ?4) ORDER BY r.experiment_id DESC "
                  "LIMIT CASE WHEN ?2 = '' THEN 1 ELSE -1 END"));
  rows.bind(parts.back(), tag, experiment, experiment_id);
  ASSAY_ASSIGN(const Meant meant, what_is_meant(rows));
  if (meant.ids.size() == 1) return meant.ids.front();
  if (meant.ids.empty()) return no_run(name, parts, experiment_id);
  return Error{ErrorCode::invalid_argument, fmt::format("\"{}\" means several runs: {}; give the full name", name,
                                                        fmt::join(meant.full_names, ", "))};
}

Result<RunFilter> NameResolver::resolved(RunFilter filter) const {
  if (!filter.tag.empty()) {
    ASSAY_ASSIGN(const int64_t id, experiment(filter.tag));
    if (filter.experiment_id != 0 && filter.experiment_id != id)
      return Error{ErrorCode::not_found, fmt::format("\"{}\" is another experiment", filter.tag)};
    filter.experiment_id = id;
    filter.tag.clear();
  }
  for (const std::string& name : filter.names) {
    ASSAY_ASSIGN(const int64_t id, run(name, filter.experiment_id));
    filter.ids.push_back(id);
  }
  filter.names.clear();
  return filter;
}

}  // namespace assay
