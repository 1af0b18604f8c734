#include "report/load.h"

#include <gtest/gtest.h>

#include "db/metric_store.h"
#include "db/run_store.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

constexpr const char* spec_text =
    "experiment = \"demo\"\n[defaults]\ndata = {path = \"data\"}\ntrain = {steps = 7}\n[matrix]\n"
    "precision = [\"bf16\", \"fp8_experts\"]\n";

class LoadReport : public testing::Test {
 protected:
  void SetUp() override {
    auto runs = RunStore::open(folder.file("queue.db"), clock);
    ASSERT_TRUE(runs.ok()) << runs.error().message;
    runs_ = std::move(runs).value();
    auto metrics = MetricStore::open(folder.file("metrics.db"), runs_->store_id());
    ASSERT_TRUE(metrics.ok()) << metrics.error().message;
    metrics_ = std::move(metrics).value();
    const SpecResult parsed = parse_experiment(spec_text, "spec.toml", folder.path());
    ASSERT_TRUE(parsed.ok()) << parsed.errors.front().to_string();
    const auto added = runs_->insert_experiment(parsed.spec, "t1", "");
    ASSERT_TRUE(added.ok()) << added.error().message;
  }

  TempFolder folder;
  ManualClock clock;
  std::unique_ptr<RunStore> runs_;
  std::unique_ptr<MetricStore> metrics_;
};

TEST_F(LoadReport, HasEveryRunWithItsConfigInTheOrderOfTheSpec) {
  const auto input = load_report(*runs_, *metrics_, "", clock.unix_ms(), folder.path());
  ASSERT_TRUE(input.ok()) << input.error().message;
  EXPECT_EQ(input->experiment.tag, "t1");
  EXPECT_EQ(input->home, folder.path());
  ASSERT_EQ(input->runs.size(), 2u);
  EXPECT_EQ(input->runs[0].config.precision, Precision::bf16);
  EXPECT_EQ(input->runs[1].config.precision, Precision::fp8_experts);
  EXPECT_EQ(input->runs[1].run.total_steps, 7);
}

TEST_F(LoadReport, HasAttemptsWithTheirSteps) {
  const auto before = load_report(*runs_, *metrics_, "t1", clock.unix_ms(), folder.path());
  ASSERT_TRUE(before.ok());
  const int64_t run = before->runs[0].run.id;
  WorkerHello hello;
  hello.worker = {.id = "w1", .host = "h", .boot_id = "b", .state = WorkerState::connected};
  hello.devices = {{.id = "cpu:h", .worker_id = "w1", .kind = DeviceKind::cpu, .name = "cpu"}};
  const auto applied =
      runs_->apply({hello, RunChange{.run_id = run, .to = RunState::running, .kind = EventKind::run_started},
                    NewAttempt{.run_id = run, .worker_id = "w1", .device_ids = {"cpu:h"}}});
  ASSERT_TRUE(applied.ok()) << applied.error().message;
  const StepMetrics steps[] = {{.step = 0, .loss = 5}, {.step = 1, .loss = 4}};
  ASSERT_TRUE(metrics_->append(applied->attempts[0].id, 1, steps).ok());
  const auto input = load_report(*runs_, *metrics_, "t1", clock.unix_ms(), folder.path());
  ASSERT_TRUE(input.ok());
  ASSERT_EQ(input->runs[0].attempts.size(), 1u);
  EXPECT_EQ(input->runs[0].attempts[0].summary.steps_observed, 2);
  ASSERT_EQ(input->runs[0].attempts[0].steps.size(), 2u);
  EXPECT_EQ(input->runs[0].attempts[0].steps[1].loss, 4);
}

TEST_F(LoadReport, UnknownTagIsNotFound) {
  const auto input = load_report(*runs_, *metrics_, "nosuch", clock.unix_ms(), folder.path());
  ASSERT_FALSE(input.ok());
  EXPECT_EQ(input.error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace assay
