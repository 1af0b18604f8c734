// Lists of runs in queue order, and their totals.
#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "db/run_store_impl.h"

namespace assay {

namespace {

// The list is three parts, each in the order of its partial index (db/schema.sql), read until the limit is reached.
struct Part {
  std::vector<RunState> states;
  std::string_view condition;  // letter for letter that of the index
  std::string_view order;
};
const std::array<Part, 3>& parts() {
  static const std::array<Part, 3> all = {
      Part{{RunState::running, RunState::paused}, "r.state IN ('running', 'paused')", "r.priority DESC, r.id"},
      Part{{RunState::queued, RunState::retry_wait, RunState::held},
           "r.state IN ('queued', 'retry_wait', 'held')",
           "r.priority DESC, r.id"},
      Part{{RunState::completed, RunState::failed, RunState::cancelled},
           "r.state IN ('completed', 'failed', 'cancelled')",
           "r.finished_at DESC, r.id DESC"}};
  return all;
}

bool contains(const std::vector<RunState>& states, RunState state) {
  return std::find(states.begin(), states.end(), state) != states.end();
}

bool wanted(const RunFilter& filter, RunState state) {
  return filter.states.empty() || contains(filter.states, state);
}

// The WHERE clause of one part; parameters: ?1 tag, ?2 experiment_id, ?3 cell_key, ?4 limit. Empty = nothing wanted.
std::string part_condition(const Part& part, const RunFilter& filter) {
  std::string words;
  size_t count = 0;
  for (RunState state : part.states) {
    if (!wanted(filter, state)) continue;
    words += fmt::format("{}'{}'", words.empty() ? "" : ", ", to_string(state));
    ++count;
  }
  if (count == 0) return "";
  std::string condition(part.condition);
  if (count < part.states.size()) condition += fmt::format(" AND r.state IN ({})", words);
  if (!filter.tag.empty()) condition += " AND r.experiment_id IN (SELECT id FROM experiments WHERE tag = ?1)";
  if (filter.experiment_id != 0) condition += " AND r.experiment_id = ?2";
  if (!filter.cell_key.empty()) condition += " AND r.cell_key = ?3";
  return condition;
}

bool before_in_queue(const ListedRun& a, const ListedRun& b) {
  auto key = [](const ListedRun& listed) {
    const RunRow& run = listed.run;
    int64_t part = contains(parts()[0].states, run.state) ? 0 : contains(parts()[1].states, run.state) ? 1 : 2;
    return part == 2 ? std::tuple(part, -run.finished_at, -run.id)
                     : std::tuple(part, -static_cast<int64_t>(run.priority), run.id);
  };
  return key(a) < key(b);
}

}  // namespace

int64_t RunCounts::total() const {
  return std::accumulate(by_state.begin(), by_state.end(), int64_t{0});
}

Result<std::vector<ListedRun>> RunStore::Impl::list_named(const RunFilter& filter) {
  std::vector<ListedRun> listed;
  for (const std::string& name : filter.names) {
    ASSAY_ASSIGN(int64_t id, resolve_run(name, filter.tag));
    ASSAY_ASSIGN(ListedRun run, listed_run(id, false));
    bool again = std::any_of(listed.begin(), listed.end(), [&](const ListedRun& other) { return other.run.id == id; });
    bool other_experiment = filter.experiment_id != 0 && run.run.experiment_id != filter.experiment_id;
    bool other_cell = !filter.cell_key.empty() && run.run.cell_key != filter.cell_key;
    if (again || other_experiment || other_cell || !wanted(filter, run.run.state)) continue;
    listed.push_back(std::move(run));
  }
  std::sort(listed.begin(), listed.end(), before_in_queue);
  if (filter.limit > 0 && listed.size() > static_cast<size_t>(filter.limit)) listed.resize(filter.limit);
  return listed;
}

Result<std::vector<ListedRun>> RunStore::Impl::list_all(const RunFilter& filter) {
  std::vector<ListedRun> listed;
  for (const Part& part : parts()) {
    std::string condition = part_condition(part, filter);
    int64_t left = filter.limit == 0 ? -1 : filter.limit - static_cast<int64_t>(listed.size());
    if (condition.empty() || left == 0) continue;
    // The ids are sorted and cut alone, then joined: sorting whole rows costs several times as much.
    ASSAY_ASSIGN(auto rows,
                 db.prepare(fmt::format(
                     "SELECT e.name, e.tag, {}, {} FROM (SELECT r.id FROM runs r WHERE {} AND ?1 = ?1 AND ?2 = ?2 "
                     "AND ?3 = ?3 ORDER BY {} LIMIT ?4) p CROSS JOIN runs r ON r.id = p.id CROSS JOIN "
                     "experiments e ON e.id = r.experiment_id LEFT JOIN attempts a ON a.run_id = r.id AND "
                     "a.n = r.attempts",
                     run_columns, attempt_columns, condition, part.order)));
    rows.bind(filter.tag, filter.experiment_id, filter.cell_key, left);
    while (true) {
      ASSAY_ASSIGN(bool row, rows.step());
      if (!row) break;
      ListedRun run;
      run.experiment = rows.text(0);
      run.tag = rows.text(1);
      int at = 2;
      ASSAY_ASSIGN(run.run, read_run(rows, at));
      if (!rows.is_null(at)) {
        ASSAY_ASSIGN(run.latest, attempt_from(rows, at));
      }
      listed.push_back(std::move(run));
    }
  }
  // SQL promises no order for the join; in fact it keeps that of the ids.
  if (!std::is_sorted(listed.begin(), listed.end(), before_in_queue)) {
    std::sort(listed.begin(), listed.end(), before_in_queue);
  }
  return listed;
}

Result<std::vector<ListedRun>> RunStore::list_runs(const RunFilter& filter) {
  std::lock_guard lock(impl_->mutex);
  return filter.names.empty() ? impl_->list_all(filter) : impl_->list_named(filter);
}

Result<RunCounts> RunStore::count_runs(const RunFilter& filter) {
  std::lock_guard lock(impl_->mutex);
  RunCounts counts;
  if (!filter.names.empty() || !filter.cell_key.empty()) {
    RunFilter all = filter;
    all.limit = 0;
    ASSAY_ASSIGN(auto listed, filter.names.empty() ? impl_->list_all(all) : impl_->list_named(all));
    for (const ListedRun& run : listed) ++counts.by_state[static_cast<size_t>(run.run.state)];
    return counts;
  }
  ASSAY_ASSIGN(auto rows, impl_->db.prepare(
                              "SELECT c.state, sum(c.n) FROM run_counts c JOIN experiments e ON e.id = c.experiment_id "
                              "WHERE (?1 = '' OR e.tag = ?1) AND (?2 = 0 OR e.id = ?2) GROUP BY c.state"));
  rows.bind(filter.tag, filter.experiment_id);
  while (true) {
    ASSAY_ASSIGN(bool row, rows.step());
    if (!row) return counts;
    auto state = parse_run_state(rows.text(0));
    if (!state) return Error{ErrorCode::data_loss, "queue.db is damaged: unknown state " + rows.text(0)};
    if (wanted(filter, *state)) counts.by_state[static_cast<size_t>(*state)] = rows.integer(1);
  }
}

}  // namespace assay
