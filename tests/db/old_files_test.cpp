// metrics.db and queue.db as earlier versions wrote them (tests/fixtures), opened by this one.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "base/file.h"
#include "db/metric_store.h"
#include "db/run_store.h"
#include "db/sqlite.h"
#include "spec/step_text.h"
#include "tests/support/paths.h"
#include "tests/support/step_values.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

class OldFilesTest : public testing::Test {
 protected:
  std::string fixture(const std::string& name) const { return source_dir() + "/tests/fixtures/home_1/" + name; }
  std::string copy(const std::string& name) {
    std::filesystem::copy_file(fixture(name), folder_.file(name));
    return folder_.file(name);
  }
  TempFolder folder_;
  SystemClock clock_;
};

TEST_F(OldFilesTest, EveryStepHasItsValuesAndNewFieldsAreEmpty) {
  const std::string path = copy("metrics.db");
  EXPECT_EQ(*Database::open(path, Database::Synchronous::normal)->integer("PRAGMA user_version"), 2);
  auto queue = RunStore::open(copy("queue.db"), clock_);
  ASSERT_TRUE(queue.ok()) << queue.error().message;
  auto opened = MetricStore::open(path, (*queue)->store_id());
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  MetricStore& store = **opened;
  std::istringstream reported(read_file(fixture("steps.csv")).value());
  std::string line;
  std::getline(reported, line);
  EXPECT_TRUE(steps_csv_header().starts_with(line + ",unix_ms,"));
  for (const auto& [run, attempt] : {std::pair("a", 1), {"b", 2}}) {
    const auto steps = store.query(attempt, 0, 0);
    ASSERT_TRUE(steps.ok()) << steps.error().message;
    EXPECT_EQ(steps->size(), attempt == 1 ? 12u : 9u);
    EXPECT_EQ(*store.acked_seq(attempt), std::ssize(*steps));
    for (const StepMetrics& metrics : *steps) {
      ASSERT_TRUE(std::getline(reported, line));
      std::string now;
      append_steps_csv(now, run, 1, metrics);
      const std::string as_reported = fmt::format("{},{},", line, metrics.unix_ms);
      EXPECT_EQ(now.substr(0, as_reported.size()), as_reported);
      EXPECT_EQ(now.find_first_not_of(",\n", as_reported.size()), std::string::npos) << "later fields are empty";
      EXPECT_NEAR(static_cast<double>(metrics.unix_ms), 1795869549500.0, 1000.0);
    }
    // The journal goes on, read by a worker of today.
    EXPECT_EQ(store.append(attempt, 1, *steps)->stored, 0);
    EXPECT_EQ(store.append(attempt, std::ssize(*steps) + 1, std::vector{some_step(20)})->stored, 1);
    EXPECT_EQ(bits(store.query(attempt, 20, 1)->at(0)), bits(some_step(20)));
    EXPECT_EQ(store.summary(attempt)->last_step, 20);
  }
  EXPECT_FALSE(std::getline(reported, line));
}

TEST_F(OldFilesTest, TheQueueHasItsRunsAndAttempts) {
  auto opened = RunStore::open(copy("queue.db"), clock_);
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  const auto a = (*opened)->get_run("fixture/t/a"), b = (*opened)->get_run("b");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->run.state, RunState::completed);
  EXPECT_EQ(b->run.state, RunState::failed);
  EXPECT_EQ(b->run.total_steps, 12);
  const auto attempts = (*opened)->attempts_of(b->run.id);
  ASSERT_TRUE(attempts.ok());
  ASSERT_EQ(attempts->size(), 1u);
  EXPECT_EQ(attempts->at(0).id, 2);
  EXPECT_EQ(attempts->at(0).state, AttemptState::ended);
  EXPECT_EQ(attempts->at(0).outcome.reason, FailureReason::crashed);
  EXPECT_EQ(attempts->at(0).outcome.signal, 11);
  EXPECT_EQ(attempts->at(0).log_path, folder_.path() + "/runs/fixture/t/b/attempt1/trainer.log");
}

}  // namespace
}  // namespace assay
