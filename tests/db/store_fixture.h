// A run store in a folder of its own, and the short forms of what the tests write into it.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "db/run_store.h"
#include "db/sqlite.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace assay {

// `cells` cells named run0, run1, ... with one repeat each.
inline ExperimentSpec make_spec(int cells, const std::string& experiment = "ablation") {
  ExperimentSpec spec;
  spec.experiment = experiment;
  spec.retry = {3, {FailureReason::out_of_memory, FailureReason::crashed}, 30};
  spec.text = "experiment = \"" + experiment + "\"\n";
  spec.hash = "hash" + std::to_string(cells);
  for (int i = 0; i < cells; ++i) {
    PlannedRun run;
    run.name = "run" + std::to_string(i);
    run.cell_key = "cell" + std::to_string(i);
    run.config.train.seed = 1 + i;
    run.config.train.steps = 100;
    spec.runs.push_back(run);
  }
  return spec;
}

inline AttemptOutcome completed() {
  return {.result = AttemptResult::completed, .step = 99, .exit_code = 0};
}
inline AttemptOutcome failed(FailureReason reason = FailureReason::crashed) {
  return {.result = AttemptResult::failed, .reason = reason, .error = "it fell over", .step = 7, .signal = 11};
}

// Every byte of [offset, offset + count) of the file becomes 0xA5.
inline void damage(const std::string& path, off_t offset, size_t count) {
  int fd = ::open(path.c_str(), O_WRONLY);
  ASSERT_GE(fd, 0) << path;
  std::string garbage(count, '\xA5');
  ASSERT_EQ(::pwrite(fd, garbage.data(), garbage.size(), offset), static_cast<ssize_t>(count));
  ::close(fd);
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() { reopen(); }

  void reopen() {
    store_.reset();
    auto opened = RunStore::open(path(), clock_);
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    store_ = std::move(*opened);
  }
  std::string path() const { return folder_.path() + "/queue.db"; }

  // Enqueues `cells` runs and returns their ids in the order of the spec.
  std::vector<int64_t> enqueue(int cells, const std::string& tag = "t1", int priority = 0,
                               const std::string& experiment = "ablation") {
    ExperimentSpec spec = make_spec(cells, experiment);
    spec.priority = priority;
    auto result = store_->insert_experiment(spec, tag, "");
    EXPECT_TRUE(result.ok()) << result.error().message;
    std::vector<int64_t> ids;
    for (const auto& run : spec.runs) ids.push_back(get(experiment + "/" + tag + "/" + run.name).run.id);
    return ids;
  }

  // A connected worker "w1" with CPU devices "d0", "d1", ...
  void add_worker(int devices = 2, const std::string& id = "w1", const std::string& prefix = "d") {
    WorkerHello hello;
    hello.worker = {id, "host", "boot", 42, 1000, WorkerState::connected, clock_.unix_ms()};
    for (int i = 0; i < devices; ++i)
      hello.devices.push_back({prefix + std::to_string(i), "", DeviceKind::cpu, "CPU", 1 << 30});
    apply_ok({hello});
  }

  Applied apply_ok(const ChangeList& changes) {
    auto applied = store_->apply(changes);
    EXPECT_TRUE(applied.ok()) << applied.error().message;
    return applied.ok() ? *applied : Applied{};
  }
  // Expects a failure and returns it.
  Error apply_error(const ChangeList& changes) {
    auto applied = store_->apply(changes);
    EXPECT_FALSE(applied.ok());
    return applied.ok() ? Error{} : applied.error();
  }

  static RunChange move(int64_t run_id, RunState from, RunState to) {
    return {.run_id = run_id, .from = from, .to = to, .kind = EventKind::run_requeued, .cause = "test"};
  }
  static NewAttempt lease(int64_t run_id, std::vector<std::string> devices = {"d0"}, const std::string& worker = "w1") {
    return {.run_id = run_id, .worker_id = worker, .device_ids = std::move(devices), .cause = "test"};
  }
  static AttemptChange step_to(const AttemptRow& attempt, AttemptState from, AttemptState to) {
    return {.attempt_id = attempt.id,
            .lease_epoch = attempt.lease_epoch,
            .from = from,
            .to = to,
            .kind = EventKind::attempt_running};
  }
  static AttemptChange end(const AttemptRow& attempt, AttemptOutcome outcome,
                           AttemptState from = AttemptState::leased) {
    AttemptChange change = step_to(attempt, from, AttemptState::ended);
    change.outcome = std::move(outcome);
    change.kind = EventKind::attempt_ended;
    return change;
  }
  AttemptRow start(int64_t run_id, std::vector<std::string> devices = {"d0"}, RunState from = RunState::queued) {
    auto applied = apply_ok({move(run_id, from, RunState::running), lease(run_id, std::move(devices))});
    return applied.attempts.empty() ? AttemptRow{} : applied.attempts[0];
  }
  void finish(int64_t run_id, const AttemptRow& attempt, RunState to = RunState::completed) {
    auto outcome = to == RunState::completed ? completed() : failed();
    apply_ok({end(attempt, outcome), move(run_id, RunState::running, to)});
  }

  ListedRun get(const std::string& name) {
    auto run = store_->get_run(name);
    EXPECT_TRUE(run.ok()) << run.error().message;
    return run.ok() ? *run : ListedRun{};
  }
  RunState state_of(int64_t run_id) {
    auto run = store_->get_run_by_id(run_id);
    EXPECT_TRUE(run.ok());
    return run->run.state;
  }
  std::vector<std::string> names(const RunFilter& filter) {
    auto listed = store_->list_runs(filter);
    EXPECT_TRUE(listed.ok()) << listed.error().message;
    std::vector<std::string> out;
    if (listed.ok()) {
      for (const auto& run : *listed) out.push_back(run.run.name);
    }
    return out;
  }
  std::vector<int64_t> candidates(int64_t limit = 100) {
    auto found = store_->claim_candidates(clock_.unix_ms(), limit);
    EXPECT_TRUE(found.ok());
    std::vector<int64_t> ids;
    for (const auto& candidate : *found) ids.push_back(candidate.run_id);
    return ids;
  }
  std::vector<EventRow> events() {
    auto found = store_->events_after(0, 0);
    EXPECT_TRUE(found.ok());
    return *found;
  }

  TempFolder folder_;
  ManualClock clock_;
  std::unique_ptr<RunStore> store_;
};

}  // namespace assay
