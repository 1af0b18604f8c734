#include "db/run_lists.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "db/run_rows.h"

namespace assay {

namespace {

// The list is three parts in this order, each in the order of its partial index (db/schema.sql), read until the limit
// is reached.
constexpr RunStage parts[] = {RunStage::active, RunStage::waiting, RunStage::ended};

std::string_view order_of(RunStage part) {
  return part == RunStage::ended ? "r.finished_at DESC, r.id DESC" : "r.priority DESC, r.id";
}

bool wanted(const RunFilter& filter, RunState state) {
  return filter.states.empty() || std::find(filter.states.begin(), filter.states.end(), state) != filter.states.end();
}

// The WHERE clause of one part; parameters: ?1 experiment_id, ?2 cell_key, ?3 limit. Empty = nothing wanted.
std::string part_condition(RunStage part, const RunFilter& filter) {
  const std::vector<RunState> states = states_of(part);
  std::string words;
  size_t count = 0;
  for (RunState state : states) {
    if (!wanted(filter, state)) continue;
    words += fmt::format("{}'{}'", words.empty() ? "" : ", ", to_string(state));
    ++count;
  }
  if (count == 0) return "";
  std::string condition = in_stage(part);
  if (count < states.size()) condition += fmt::format(" AND r.state IN ({})", words);
  if (filter.experiment_id != 0) condition += " AND r.experiment_id = ?1";
  if (!filter.cell_key.empty()) condition += " AND r.cell_key = ?2";
  return condition;
}

bool before_in_queue(const ListedRun& a, const ListedRun& b) {
  auto key = [](const ListedRun& listed) {
    const RunRow& run = listed.run;
    const RunStage part = stage_of(run.state);
    return part == RunStage::ended ? std::tuple(part, -run.finished_at, -run.id)
                                   : std::tuple(part, -static_cast<int64_t>(run.priority), run.id);
  };
  return key(a) < key(b);
}

}  // namespace

int64_t RunCounts::total() const {
  return std::accumulate(by_state.begin(), by_state.end(), int64_t{0});
}

Status RunLists::read_rows(Statement& rows, std::vector<ListedRun>& listed) const {
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return {};
    int at = 0;
    ASSAY_ASSIGN(ListedRun run, read_listed_run(rows, at, home_));
    listed.push_back(std::move(run));
  }
}

Result<std::vector<ListedRun>> RunLists::list_ids(const RunFilter& filter) const {
  const std::set<int64_t> ids(filter.ids.begin(), filter.ids.end());
  ASSAY_ASSIGN(auto rows, db_.prepare(fmt::format(
                              "SELECT e.name, e.tag, {}, {} FROM json_each(?) j CROSS JOIN runs r ON r.id = "
                              "j.value CROSS JOIN experiments e ON e.id = r.experiment_id LEFT JOIN attempts a "
                              "ON a.run_id = r.id AND a.n = r.attempts",
                              run_columns, attempt_columns)));
  const std::string text = fmt::format("[{}]", fmt::join(ids, ","));
  rows.bind(text);
  std::vector<ListedRun> listed;
  ASSAY_TRY(read_rows(rows, listed));
  if (listed.size() < ids.size()) {
    std::set<int64_t> missing = ids;
    for (const ListedRun& run : listed) missing.erase(run.run.id);
    return Error{ErrorCode::not_found, fmt::format("there is no run {}", *missing.begin())};
  }
  std::erase_if(listed, [&](const ListedRun& run) {
    const bool other_experiment = filter.experiment_id != 0 && run.run.experiment_id != filter.experiment_id;
    const bool other_cell = !filter.cell_key.empty() && run.run.cell_key != filter.cell_key;
    return other_experiment || other_cell || !wanted(filter, run.run.state);
  });
  std::sort(listed.begin(), listed.end(), before_in_queue);
  if (filter.limit > 0 && listed.size() > static_cast<size_t>(filter.limit)) listed.resize(filter.limit);
  return listed;
}

Result<std::vector<ListedRun>> RunLists::list_all(const RunFilter& filter) const {
  std::vector<ListedRun> listed;
  for (const RunStage part : parts) {
    std::string condition = part_condition(part, filter);
    int64_t left = filter.limit == 0 ? -1 : filter.limit - static_cast<int64_t>(listed.size());
    if (condition.empty() || left == 0) continue;
    // The ids are sorted and cut alone, then joined: sorting whole rows costs several times as much.
    ASSAY_ASSIGN(auto rows,
                 db_.prepare(fmt::format(
                     "SELECT e.name, e.tag, {}, {} FROM (SELECT r.id FROM runs r WHERE {} AND ?1 = ?1 AND ?2 = ?2 "
                     "ORDER BY {} LIMIT ?3) p CROSS JOIN runs r ON r.id = p.id CROSS JOIN "
                     "experiments e ON e.id = r.experiment_id LEFT JOIN attempts a ON a.run_id = r.id AND "
                     "a.n = r.attempts",
                     run_columns, attempt_columns, condition, order_of(part))));
    rows.bind(filter.experiment_id, filter.cell_key, left);
    ASSAY_TRY(read_rows(rows, listed));
  }
  // SQL promises no order for the join; in fact it keeps that of the ids.
  if (!std::is_sorted(listed.begin(), listed.end(), before_in_queue)) {
    std::sort(listed.begin(), listed.end(), before_in_queue);
  }
  return listed;
}

Result<std::vector<ListedRun>> RunLists::list_resolved(const RunFilter& filter) const {
  return filter.ids.empty() ? list_all(filter) : list_ids(filter);
}

Result<std::vector<ListedRun>> RunLists::list(const RunFilter& filter) const {
  ASSAY_ASSIGN(const RunFilter wanted_runs, names_.resolved(filter));
  return list_resolved(wanted_runs);
}

Result<RunCounts> RunLists::count(const RunFilter& filter) const {
  RunCounts counts;
  ASSAY_ASSIGN(RunFilter all, names_.resolved(filter));
  all.limit = 0;
  if (!all.ids.empty() || !all.cell_key.empty()) {
    ASSAY_ASSIGN(auto listed, list_resolved(all));
    for (const ListedRun& run : listed) ++counts.by_state[static_cast<size_t>(run.run.state)];
    return counts;
  }
  ASSAY_ASSIGN(auto rows, db_.prepare("SELECT c.state, sum(c.n) FROM run_counts c WHERE ?1 = 0 OR "
                                      "c.experiment_id = ?1 GROUP BY c.state"));
  rows.bind(all.experiment_id);
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return counts;
    ASSAY_ASSIGN(const RunState state, read_word<RunState>(rows, 0, "run_counts.state"));
    if (wanted(all, state)) counts.by_state[static_cast<size_t>(state)] = rows.integer(1);
  }
}

}  // namespace assay
