// A queue with stores on disk, a clock that stands still, and runs that exist only as rows.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "daemon/queue.h"
#include "tests/support/fake_worker.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace assay {

inline ExperimentSpec spec_of(const std::vector<std::string>& runs, Backend backend = Backend::cpu, int devices = 1) {
  ExperimentSpec spec;
  spec.experiment = "exp";
  spec.text = "experiment = \"exp\"";
  spec.hash = "hash";
  for (const std::string& name : runs) {
    PlannedRun run;
    run.name = name;
    run.cell_key = "cell-" + name;
    run.config.backend = backend;
    run.config.devices = devices;
    run.config.train.steps = 10;
    spec.runs.push_back(run);
  }
  return spec;
}

class QueueTest : public testing::Test {
 protected:
  QueueTest() { open(); }

  void open() {
    auto runs = RunStore::open(folder_.file("queue.db"), clock_);
    ASSERT_TRUE(runs.ok()) << runs.error().message;
    runs_ = std::move(*runs);
    auto metrics = MetricStore::open(folder_.file("metrics.db"), runs_->store_id());
    ASSERT_TRUE(metrics.ok()) << metrics.error().message;
    metrics_ = std::move(*metrics);
    auto queue = Queue::open(*runs_, *metrics_, clock_, folder_.path());
    ASSERT_TRUE(queue.ok()) << queue.error().message;
    queue_ = std::move(*queue);
  }
  // The daemon is killed (what is staged is gone) and started again on the same home.
  void restart() {
    queue_.reset();
    metrics_.reset();
    runs_.reset();
    open();
  }

  void commit() {
    const Status status = queue_->commit();
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  void enqueue(const ExperimentSpec& spec, const std::string& tag = "t1") {
    const auto added = queue_->enqueue(spec, tag, "");
    ASSERT_TRUE(added.ok()) << added.error().message;
    commit();
  }
  Result<ChangeAnswer> cancel(const Selection& selection, bool all, const std::string& request_id) {
    return queue_->change({RunVerb::cancel, selection, all, request_id});
  }
  Result<ChangeAnswer> retry(const Selection& selection, bool failed, const std::string& request_id) {
    return queue_->change({RunVerb::retry, selection, failed, request_id});
  }
  Result<ChangeAnswer> hold(const Selection& selection, const std::string& request_id) {
    return queue_->change({RunVerb::hold, selection, false, request_id});
  }
  Result<ChangeAnswer> release(const Selection& selection, const std::string& request_id) {
    return queue_->change({RunVerb::release, selection, false, request_id});
  }
  void connect(FakeWorker& worker) {
    worker.connect(*queue_);
    commit();
  }
  void pass_ms(int64_t ms) {
    clock_.advance_ms(ms);
    queue_->tick();
    commit();
  }
  // Starts the attempt and lets it make `steps` steps.
  void begin(FakeWorker& worker, int64_t attempt, int64_t steps) {
    worker.tell_started(*queue_, attempt);
    worker.make_steps(attempt, steps);
    worker.tell_steps(*queue_, attempt);
    commit();
  }
  // Starts the attempt, lets it make `steps` steps and end.
  void finish(FakeWorker& worker, int64_t attempt, AttemptResult result = AttemptResult::completed,
              FailureReason reason = FailureReason::none, int64_t steps = 10) {
    worker.tell_started(*queue_, attempt);
    worker.make_steps(attempt, steps);
    worker.tell_steps(*queue_, attempt);
    worker.end(attempt, result, reason, "boom");
    worker.tell_end(*queue_, attempt);
    commit();
  }

  std::string state(const std::string& run) {
    const auto listed = runs_->get_run(run);
    if (!listed.ok()) return listed.error().message;
    std::string text(to_string(listed->run.state));
    if (listed->latest && listed->latest->state != AttemptState::ended)
      text += "/" + std::string(to_string(listed->latest->state));
    return text;
  }
  ListedRun row(const std::string& run) { return *runs_->get_run(run); }
  std::vector<AttemptRow> attempts(const std::string& run) { return *runs_->attempts_of(row(run).run.id); }
  AttemptSummary summary(int64_t attempt) { return *metrics_->summary(attempt); }
  ChangeAnswer changed(Result<ChangeAnswer> answer) {
    EXPECT_TRUE(answer.ok()) << answer.error().message;
    commit();
    return answer.ok() ? *answer : ChangeAnswer{};
  }

  TempFolder folder_;
  ManualClock clock_;
  std::unique_ptr<RunStore> runs_;
  std::unique_ptr<MetricStore> metrics_;
  std::unique_ptr<Queue> queue_;
};

}  // namespace assay
