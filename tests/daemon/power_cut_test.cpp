// The power is cut at every sync of a queue at work. What the disk is known to hold is then the whole of the state, and
// everything that was acknowledged as ended must be in it, with every step.
#include <filesystem>
#include <set>

#include "queue_fixture.h"
#include "tests/support/power_cut_vfs.h"

namespace assay {
namespace {

struct Cut {
  PowerCutVfs::Disk disk;
  std::map<int64_t, int64_t> acknowledged;  // ended attempt -> its steps
  std::set<int64_t> leased;                 // attempts that a worker had been given
};

class PowerCutTest : public testing::Test {
 protected:
  void remember(const PowerCutVfs& vfs, bool some_written) {
    const auto seed = static_cast<unsigned>(cuts_.size());
    cuts_.push_back({some_written ? vfs.some_written(seed) : vfs.synced(), acknowledged_, leased_});
  }
  void work(bool some_written);
  void look_at(const Cut& cut);

  ManualClock clock_;
  TempFolder folder_;
  std::vector<Cut> cuts_;
  std::map<int64_t, int64_t> acknowledged_;
  std::set<int64_t> leased_;
};

// Two runs at a time, of one to five batches of steps each; ends come alone, together, and beside others' steps.
void PowerCutTest::work(bool some_written) {
  const PowerCutVfs* disk = nullptr;
  PowerCutVfs vfs([&] {
    if (disk) remember(*disk, some_written);
  });
  disk = &vfs;
  auto runs = RunStore::open(folder_.file("queue.db"), clock_);
  ASSERT_TRUE(runs.ok()) << runs.error().message;
  auto metrics = MetricStore::open(folder_.file("metrics.db"), (*runs)->store_id());
  ASSERT_TRUE(metrics.ok()) << metrics.error().message;
  auto queue = Queue::open(**runs, **metrics, clock_, folder_.path());
  ASSERT_TRUE(queue.ok()) << queue.error().message;
  Queue& q = **queue;
  std::vector<std::string> names;
  for (int i = 0; i < 12; ++i) names.push_back("run" + std::to_string(i));
  ASSERT_TRUE(q.enqueue(spec_of(names, Backend::cuda), "t1", "").ok());
  FakeWorker worker("w", 2);
  worker.connect(q);
  std::map<int64_t, int64_t> steps;
  const auto commit = [&] {
    ASSERT_TRUE(q.commit().ok());
    for (const auto& [attempt, made] : steps)
      if (!worker.held.contains(attempt)) acknowledged_[attempt] = made;
    for (const auto& [attempt, lease] : worker.held) {
      leased_.insert(attempt);
      steps[attempt] = lease.steps;
    }
  };
  commit();
  for (int round = 0; !worker.held.empty(); ++round) {
    std::vector<int64_t> ended;
    for (auto& [attempt, lease] : worker.held) {
      if (lease.steps == 0) worker.tell_started(q, attempt);
      worker.make_steps(attempt, 40);
      worker.tell_steps(q, attempt);
      steps[attempt] = lease.steps;
      if (lease.steps / 40 > attempt % 5) ended.push_back(attempt);
    }
    for (const int64_t attempt : ended) {
      worker.end(attempt);
      worker.tell_end(q, attempt);
    }
    commit();
  }
  remember(vfs, some_written);
  EXPECT_EQ(acknowledged_.size(), names.size());
}

void PowerCutTest::look_at(const Cut& cut) {
  const TempFolder after;
  for (const auto& [path, content] : cut.disk)
    std::ofstream(after.file(std::filesystem::path(path).filename()), std::ios::binary) << *content;
  auto runs = RunStore::open(after.file("queue.db"), clock_);
  ASSERT_TRUE(runs.ok()) << runs.error().message;
  if (cut.leased.empty()) return;  // the two files may not know each other yet, and nothing depends on it
  auto metrics = MetricStore::open(after.file("metrics.db"), (*runs)->store_id());
  ASSERT_TRUE(metrics.ok()) << metrics.error().message;
  for (const int64_t attempt : cut.leased) {
    const auto row = (*runs)->get_attempt(attempt);
    ASSERT_TRUE(row.ok()) << row.error().message;
    // Of a live one the journal sends what is missing; of an ended one nobody does.
    if (row->attempt.state != AttemptState::ended) continue;
    const int64_t stored = (*metrics)->summary(attempt)->steps_observed;
    EXPECT_EQ(stored, row->attempt.outcome.step + 1) << "attempt " << attempt;
    EXPECT_EQ(static_cast<int64_t>((*metrics)->query(attempt, 0, 0)->size()), stored);
  }
  for (const auto& [attempt, steps] : cut.acknowledged) {
    EXPECT_EQ((*runs)->get_attempt(attempt)->attempt.state, AttemptState::ended) << "attempt " << attempt;
    EXPECT_EQ((*metrics)->summary(attempt)->steps_observed, steps) << "attempt " << attempt;
  }
  ASSERT_TRUE(Queue::open(**runs, **metrics, clock_, after.path()).ok());
  const auto events = (*runs)->events_after(0, 0);
  ASSERT_TRUE(events.ok());
  for (const EventRow& event : *events)
    EXPECT_TRUE(event.kind != EventKind::store_restored && event.kind != EventKind::metrics_restored) << event.cause;
}

TEST_F(PowerCutTest, WhatWasAcknowledgedAsEndedIsOnDisk) {
  work(false);
  ASSERT_GT(cuts_.size(), 30u);
  for (size_t i = 0; i < cuts_.size(); ++i) {
    SCOPED_TRACE("cut before sync " + std::to_string(i));
    look_at(cuts_[i]);
  }
}

TEST_F(PowerCutTest, AndSoItIsWhenSomeOfTheRestWasWrittenToo) {
  work(true);
  for (size_t i = 0; i < cuts_.size(); ++i) {
    SCOPED_TRACE("cut before sync " + std::to_string(i));
    look_at(cuts_[i]);
  }
}

}  // namespace
}  // namespace assay
