#include "db/metric_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "db/sqlite.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

using testing::HasSubstr;

StepMetrics make_step(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.loss = 10.0 - 0.01 * static_cast<double>(step);
  m.dt_ms = 100 + static_cast<double>(step);
  m.tok_per_sec = 1000 + static_cast<double>(step);
  m.mfu = 40;
  m.peak_mem_mib = 512;
  m.unix_ms = 1'000 + step;
  return m;
}
std::vector<StepMetrics> make_steps(int64_t from, int64_t count) {
  std::vector<StepMetrics> steps;
  for (int64_t i = 0; i < count; ++i) steps.push_back(make_step(from + i));
  return steps;
}

class MetricStoreTest : public testing::Test {
 protected:
  MetricStoreTest() { reopen(); }
  void reopen() {
    store_.reset();
    auto opened = MetricStore::open(folder_.path() + "/metrics.db", "queue-a");
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    store_ = std::move(*opened);
  }
  Appended append(int64_t attempt, int64_t first_seq, const std::vector<StepMetrics>& steps) {
    auto appended = store_->append(attempt, first_seq, steps);
    EXPECT_TRUE(appended.ok()) << appended.error().message;
    return appended.ok() ? *appended : Appended{};
  }
  int64_t count(int64_t attempt) { return static_cast<int64_t>(store_->query(attempt, 0, 0)->size()); }

  TempFolder folder_;
  std::unique_ptr<MetricStore> store_;
};

TEST_F(MetricStoreTest, EveryFieldComesBack) {
  append(1, 1, {some_step(3)});
  reopen();
  auto steps = store_->query(1, 0, 0);
  ASSERT_EQ(steps->size(), 1u);
  EXPECT_EQ(bits(steps->at(0)), bits(some_step(3)));
}

TEST_F(MetricStoreTest, WhatWasNotRecordedIsNullAndComesBackSo) {
  append(1, 1, {make_step(0)});
  auto db = Database::open(folder_.path() + "/metrics.db", Database::Synchronous::normal);
  EXPECT_EQ(*db->integer("SELECT count(*) FROM steps WHERE val_loss IS NULL AND tokens IS NULL AND flops IS NULL"), 1);
  EXPECT_EQ(bits(store_->query(1, 0, 0)->at(0)), bits(make_step(0)));
}

TEST_F(MetricStoreTest, NanAndInfinityComeBack) {
  StepMetrics m = make_step(0);
  m.loss = std::numeric_limits<double>::quiet_NaN();
  m.grad_norm = std::numeric_limits<double>::infinity();
  append(1, 1, {m});
  EXPECT_TRUE(std::isnan(store_->query(1, 0, 0)->at(0).loss));
  EXPECT_EQ(store_->query(1, 0, 0)->at(0).grad_norm, std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(store_->query(1, 0, 0)->at(0).val_loss));
  EXPECT_TRUE(std::isnan(store_->summary(1)->last_loss));
  EXPECT_TRUE(std::isnan(store_->summary(1)->tail50_loss));
  EXPECT_EQ(store_->summary(1)->tail50_dt_ms, 100);
}

TEST_F(MetricStoreTest, ABatchSentAgainIsStoredOnce) {
  EXPECT_EQ(append(1, 1, make_steps(0, 10)).stored, 10);
  Appended again = append(1, 1, make_steps(0, 10));
  EXPECT_EQ(again.stored, 0);
  EXPECT_EQ(again.acked_seq, 10);
  Appended overlap = append(1, 6, make_steps(5, 10));
  EXPECT_EQ(overlap.stored, 5);
  EXPECT_EQ(overlap.acked_seq, 15);
  EXPECT_EQ(count(1), 15);
  EXPECT_EQ(store_->summary(1)->steps_observed, 15);
}

TEST_F(MetricStoreTest, AStepWithOtherValuesIsRefusedAndNamesBoth) {
  append(1, 1, make_steps(0, 3));
  StepMetrics other = make_step(2);
  other.loss = -1;
  other.unix_ms = 77;
  const std::string message =
      "attempt 1: step 2 is stored with loss 9.98, made at 1002 ms, and was sent with loss -1, made at 77 ms: these "
      "are steps of two executions";
  for (const int64_t seq : {3, 4}) {  // under its own record, which is acknowledged, and under a new one
    auto refused = store_->append(1, seq, std::vector{other});
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
    EXPECT_EQ(refused.error().message, message);
  }
  // Nothing of such a batch is stored, and nothing of it acknowledged.
  EXPECT_FALSE(store_->append(1, 4, std::vector{make_step(3), other}).ok());
  EXPECT_EQ(*store_->acked_seq(1), 3);
  EXPECT_EQ(count(1), 3);
  EXPECT_EQ(store_->query(1, 2, 1)->at(0).loss, make_step(2).loss);
}

TEST_F(MetricStoreTest, AnyValueTellsTwoExecutionsApart) {
  StepMetrics nan = some_step(0);
  nan.loss = nan.val_loss = std::numeric_limits<double>::quiet_NaN();
  nan.grad_norm = -0.0;
  append(1, 1, {nan});
  EXPECT_EQ(append(1, 1, {nan}).acked_seq, 1) << "NaN is the same as NaN";
  for (const StepField& field : step_fields) {
    StepMetrics other = nan;
    field.visit(other, [](auto& value) { value = 12345; });
    EXPECT_EQ(store_->append(1, 1, std::vector{other}).error().code, ErrorCode::already_exists) << field.name;
  }
}

// Between the two somebody did not know the field: an older daemon stored the step, or an older worker sends it again.
TEST_F(MetricStoreTest, AFieldOfALaterVersionThatOneSideLacksTellsNothing) {
  for (const StepField& field : step_fields) {
    StepMetrics without = some_step(field.since);
    field.visit(without, []<class T>(T& value) { value = not_recorded<T>; });
    const StepMetrics with = some_step(field.since);
    const int64_t attempt = 10 + 2 * (&field - step_fields);
    const bool later = field.since > 1;
    if (field.name == "step") continue;
    append(attempt, 1, {without});
    EXPECT_EQ(store_->append(attempt, 1, std::vector{with}).ok(), later) << field.name;
    append(attempt + 1, 1, {with});
    EXPECT_EQ(store_->append(attempt + 1, 1, std::vector{without}).ok(), later) << field.name;
    EXPECT_EQ(bits(store_->query(attempt + 1, 0, 0)->at(0)), bits(with));
  }
}

TEST_F(MetricStoreTest, AnAcknowledgedRecordWhoseStepIsNotStoredIsRefused) {
  append(1, 1, make_steps(0, 3));
  auto refused = store_->append(1, 2, std::vector{make_step(50)});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
  EXPECT_THAT(refused.error().message, HasSubstr("step 50 is missing, though its journal record was stored"));
}

TEST_F(MetricStoreTest, HowFarTheQueueHasComeNeverGoesBack) {
  EXPECT_TRUE(store_->queue_mark()->empty());
  ASSERT_TRUE(store_->note({{"attempts", 7}, {"events", 90}}).ok());
  ASSERT_TRUE(store_->note({{"attempts", 5}, {"events", 95}, {"runs", 1}}).ok());
  const QueueMark mark = {{"attempts", 7}, {"events", 95}, {"runs", 1}};
  EXPECT_EQ(*store_->queue_mark(), mark);
  reopen();
  EXPECT_EQ(*store_->queue_mark(), mark);
}

TEST_F(MetricStoreTest, AGapIsAbortedAndStoresNothing) {
  append(1, 1, make_steps(0, 5));
  auto gap = store_->append(1, 7, make_steps(6, 5));
  ASSERT_FALSE(gap.ok());
  EXPECT_EQ(gap.error().code, ErrorCode::aborted);
  EXPECT_EQ(gap.error().message, "attempt 1: record 7 does not follow the last stored one, 5; send again from there");
  EXPECT_EQ(count(1), 5);
  EXPECT_EQ(*store_->acked_seq(1), 5);
}

TEST_F(MetricStoreTest, AWrongStepUndoesTheWholeBatch) {
  auto steps = make_steps(0, 5);
  steps[4].step = -2;
  auto result = store_->append(1, 1, steps);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(count(1), 0);
  EXPECT_EQ(*store_->acked_seq(1), 0);
  EXPECT_EQ(store_->append(1, 0, make_steps(0, 1)).error().message, "journal records are numbered from 1");
}

TEST_F(MetricStoreTest, StepsAndAcknowledgementAgreeAfterReopening) {
  append(1, 1, make_steps(0, 100));
  append(2, 1, make_steps(0, 7));
  reopen();
  EXPECT_EQ(*store_->acked_seq(1), 100);
  EXPECT_EQ(*store_->acked_seq(2), 7);
  EXPECT_EQ(*store_->acked_seq(3), 0);
  EXPECT_EQ(append(1, 101, make_steps(100, 1)).acked_seq, 101);
}

TEST_F(MetricStoreTest, QueryPagesByStep) {
  append(1, 1, make_steps(0, 10));
  append(2, 1, make_steps(0, 3));
  auto page = store_->query(1, 4, 3);
  ASSERT_EQ(page->size(), 3u);
  EXPECT_EQ(page->at(0).step, 4);
  EXPECT_EQ(page->at(2).step, 6);
  EXPECT_EQ(store_->query(1, 10, 0)->size(), 0u);
}

TEST_F(MetricStoreTest, TailIsTheMeanOfTheLastFiftyObservedStepsByStep) {
  append(1, 1, make_steps(0, 60));
  AttemptSummary s = *store_->summary(1);
  EXPECT_EQ(s.steps_observed, 60);
  EXPECT_EQ(s.last_step, 59);
  EXPECT_EQ(s.last_loss, make_step(59).loss);
  EXPECT_DOUBLE_EQ(s.tail50_dt_ms, 100 + (10 + 59) / 2.0);  // steps 10..59
  EXPECT_DOUBLE_EQ(s.tail50_tok_per_sec, 1000 + (10 + 59) / 2.0);
  EXPECT_DOUBLE_EQ(s.tail50_mfu, 40);
  EXPECT_NEAR(s.tail50_loss, 10 - 0.01 * (10 + 59) / 2.0, 1e-12);
}

TEST_F(MetricStoreTest, ShortRunsAverageWhatTheyHave) {
  append(1, 1, make_steps(0, 4));
  EXPECT_DOUBLE_EQ(store_->summary(1)->tail50_dt_ms, 101.5);
}

TEST_F(MetricStoreTest, SummaryFollowsStepOrderNotArrival) {
  append(1, 1, {make_step(70)});
  append(1, 2, make_steps(0, 60));
  AttemptSummary s = *store_->summary(1);
  EXPECT_EQ(s.last_step, 70);
  EXPECT_EQ(s.last_loss, make_step(70).loss);
  EXPECT_DOUBLE_EQ(s.tail50_dt_ms, (170 + 49 * 100 + 49 * (11 + 59) / 2.0) / 50);  // steps 11..59 and 70
}

TEST_F(MetricStoreTest, SummaryKeepsThePeakAndTheLastEvaluation) {
  auto steps = make_steps(0, 5);
  steps[1].peak_mem_mib = 900;
  steps[2].val_loss = 3.5;
  steps[3].val_loss = 3.25;
  append(1, 1, steps);
  append(1, 6, make_steps(5, 2));
  EXPECT_EQ(store_->summary(1)->peak_mem_mib, 900);
  EXPECT_EQ(store_->summary(1)->last_val_loss, 3.25);
}

TEST_F(MetricStoreTest, SummariesKeepTheOrderOfTheIds) {
  append(5, 1, make_steps(0, 3));
  append(2, 1, make_steps(0, 8));
  std::vector<int64_t> ids = {5, 9, 2};
  auto all = store_->summaries(ids);
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ(all->at(0).steps_observed, 3);
  EXPECT_EQ(all->at(1).steps_observed, 0);
  EXPECT_EQ(all->at(1).last_step, -1);
  EXPECT_TRUE(std::isnan(all->at(1).last_val_loss));
  EXPECT_EQ(all->at(2).steps_observed, 8);
}

TEST_F(MetricStoreTest, ATableWithOtherColumnsIsRefused) {
  const std::string path = folder_.path() + "/metrics.db";
  const auto message_after = [&](const char* sql) {
    store_.reset();
    std::filesystem::remove(path);
    reopen();
    store_.reset();
    EXPECT_TRUE(Database::open(path, Database::Synchronous::normal)->run_script(sql).ok());
    const auto opened = MetricStore::open(path, "queue-a");
    EXPECT_FALSE(opened.ok());
    if (opened.ok()) return std::string();
    EXPECT_EQ(opened.error().code, ErrorCode::failed_precondition);
    return opened.error().message;
  };
  EXPECT_THAT(message_after("ALTER TABLE steps DROP COLUMN flops"),
              HasSubstr(path + ": table steps has no column flops: the file is damaged or was written by another"));
  EXPECT_THAT(message_after("ALTER TABLE steps DROP COLUMN flops; ALTER TABLE steps ADD COLUMN flops INTEGER"),
              HasSubstr("table steps has INTEGER in column flops, not REAL"));
  EXPECT_THAT(message_after("ALTER TABLE steps ADD COLUMN zeal REAL"),
              HasSubstr("table steps has a column zeal that this program does not know"));
}

TEST_F(MetricStoreTest, AnotherQueuesMetricsAreRefused) {
  store_.reset();
  auto other = MetricStore::open(folder_.path() + "/metrics.db", "queue-b");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, ErrorCode::failed_precondition);
  EXPECT_THAT(other.error().message, HasSubstr("belong to another queue.db"));
  reopen();  // and it is still the first queue's
}

}  // namespace
}  // namespace assay
