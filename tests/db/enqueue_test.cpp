#include "spec/run_config_toml.h"
#include "store_fixture.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EnqueueTest : public StoreTest {};

TEST_F(EnqueueTest, StoresEveryFieldOfExperimentAndRuns) {
  ExperimentSpec spec = make_spec(2);
  spec.priority = 5;
  spec.on_failure = OnFailure::stop_cell;
  spec.baseline = "run1";
  spec.runs[1].repeat = 2;
  spec.runs[1].config.devices = 3;
  spec.runs[1].config.backend = Backend::cuda;
  auto result = store_->insert_experiment(spec, "t1", "");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result->added, ElementsAre("run0", "run1"));
  EXPECT_EQ(result->already_there, 0);

  auto experiment = store_->find_experiment("t1");
  ASSERT_TRUE(experiment.ok());
  EXPECT_EQ(experiment->id, result->experiment_id);
  EXPECT_EQ(experiment->name, "ablation");
  EXPECT_EQ(experiment->spec_text, spec.text);
  EXPECT_EQ(experiment->spec_hash, spec.hash);
  EXPECT_EQ(experiment->baseline, "run1");
  EXPECT_EQ(experiment->on_failure, OnFailure::stop_cell);
  EXPECT_EQ(experiment->retry.max_attempts, 3);
  EXPECT_THAT(experiment->retry.on, ElementsAre(FailureReason::out_of_memory, FailureReason::crashed));
  EXPECT_EQ(experiment->retry.backoff_s, 30);
  EXPECT_EQ(experiment->created_at, clock_.unix_ms());

  ListedRun run = get("run1");
  EXPECT_EQ(run.experiment, "ablation");
  EXPECT_EQ(run.tag, "t1");
  EXPECT_EQ(run.run.cell_key, "cell1");
  EXPECT_EQ(run.run.repeat, 2);
  EXPECT_EQ(run.run.seed, 2);
  EXPECT_EQ(run.run.state, RunState::queued);
  EXPECT_EQ(run.run.priority, 5);
  EXPECT_EQ(run.run.devices, 3);
  EXPECT_EQ(run.run.backend, Backend::cuda);
  EXPECT_EQ(run.run.total_steps, 100);
  EXPECT_EQ(run.run.config_toml, to_toml(spec.runs[1].config));
  EXPECT_EQ(run.run.created_at, clock_.unix_ms());
  EXPECT_FALSE(run.latest.has_value());
}

TEST_F(EnqueueTest, WritesOneEventPerRun) {
  enqueue(2);
  auto rows = events();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].kind, EventKind::run_enqueued);
  EXPECT_EQ(rows[0].to_state, "queued");
  EXPECT_EQ(rows[0].cause, "assay enqueue");
  EXPECT_EQ(rows[1].run_id, get("run1").run.id);
  EXPECT_EQ(rows[1].at, clock_.unix_ms());
}

TEST_F(EnqueueTest, AgainUnderTheSameTagAddsOnlyWhatIsMissing) {
  enqueue(2);
  ExperimentSpec longer = make_spec(3);
  longer.baseline = "run2";
  auto again = store_->insert_experiment(longer, "t1", "");
  ASSERT_TRUE(again.ok());
  EXPECT_THAT(again->added, ElementsAre("run2"));
  EXPECT_EQ(again->already_there, 2);
  EXPECT_EQ(names({}).size(), 3u);
  EXPECT_EQ(store_->list_experiments(0)->size(), 1u);
  EXPECT_EQ(store_->find_experiment("t1")->baseline, "run2") << "the newer spec's policies hold";
}

TEST_F(EnqueueTest, AnotherTagIsAnotherExperiment) {
  enqueue(2, "t1");
  auto other = store_->insert_experiment(make_spec(2), "t2", "");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->added.size(), 2u);
  EXPECT_EQ(names({}).size(), 4u);
}

TEST_F(EnqueueTest, SameNameWithAnotherConfigIsRefusedAndNothingIsWritten) {
  enqueue(2);
  ExperimentSpec changed = make_spec(4);
  changed.runs[1].cell_key = "another";
  changed.runs[1].config.train.steps = 30;
  changed.priority = 7;
  changed.baseline = "run3";
  size_t events_before = events().size();
  auto result = store_->insert_experiment(changed, "t1", "");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::already_exists);
  EXPECT_THAT(result.error().message, HasSubstr("run1"));
  EXPECT_THAT(result.error().message, HasSubstr("train.steps = 100 there and 30 here; enqueue under another --tag"));
  EXPECT_EQ(get("run0").run.priority, 0);
  EXPECT_EQ(names({}).size(), 2u);
  EXPECT_EQ(store_->find_experiment("t1")->baseline, "");
  EXPECT_EQ(events().size(), events_before);
}

TEST_F(EnqueueTest, AnotherSeedOfTheSameCellIsAnotherRun) {
  enqueue(2);
  ExperimentSpec changed = make_spec(2);
  changed.runs[1].config.train.seed = 99;
  auto result = store_->insert_experiment(changed, "t1", "");
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("train.seed = 2 there and 99 here"));
}

// The key of a cell changes when a newer program knows one more value; the config says that it is the same run.
TEST_F(EnqueueTest, AnotherKeyForTheSameConfigIsTheSameRun) {
  enqueue(2);
  ExperimentSpec same = make_spec(2);
  same.runs[1].cell_key = "key of a newer program";
  auto result = store_->insert_experiment(same, "t1", "");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result->already_there, 2);
}

TEST_F(EnqueueTest, ComparisonSaysWhatEnqueueingDoesAndWritesNothing) {
  EXPECT_EQ(store_->compare_experiment(make_spec(2), "t1")->experiment_id, 0);
  enqueue(2);
  ExperimentSpec changed = make_spec(3);
  changed.runs[1].cell_key = "another";
  changed.runs[1].config.model.depth = 3;
  changed.priority = 5;
  auto compared = store_->compare_experiment(changed, "t1");
  ASSERT_TRUE(compared.ok()) << compared.error().message;
  using Is = RunComparison::Is;
  EXPECT_EQ(compared->runs[0].is, Is::already_there);
  EXPECT_EQ(compared->runs[1].is, Is::another);
  EXPECT_EQ(compared->runs[1].difference, "model.depth = 12 there and 3 here");
  EXPECT_EQ(compared->runs[2].is, Is::new_run);
  EXPECT_THAT(compared->updated, ElementsAre("priority 0 -> 5 (2 waiting runs)"));
  EXPECT_EQ(events().size(), 2u);
  auto refused = store_->insert_experiment(changed, "t1", "");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, conflict_text(changed, "t1", *compared));
}

TEST_F(EnqueueTest, ChangedPoliciesAreAppliedToRunsThatWaitAndSaid) {
  enqueue(3);
  apply_ok({RunChange{.run_id = get("run0").run.id, .to = RunState::running, .kind = EventKind::run_started}});
  ExperimentSpec changed = make_spec(3);
  changed.priority = 5;
  changed.on_failure = OnFailure::stop_all;
  changed.retry.max_attempts = 1;
  changed.retry.on.clear();
  changed.baseline = "run2";
  auto result = store_->insert_experiment(changed, "t1", "req");
  ASSERT_TRUE(result.ok()) << result.error().message;
  const auto updated = result->updated;
  EXPECT_THAT(updated, ElementsAre("priority 0 -> 5 (2 waiting runs)", "on_failure continue -> stop_all",
                                   "retry.max_attempts 3 -> 1", "retry.on out_of_memory,crashed -> none",
                                   "baseline the first run -> run2"));
  EXPECT_EQ(get("run1").run.priority, 5);
  EXPECT_EQ(get("run0").run.priority, 5) << "it may wait again";
  auto rows = events();
  ASSERT_GE(rows.size(), 5u);
  EXPECT_EQ(rows[4].kind, EventKind::policy_changed);
  EXPECT_EQ(rows[4].cause, "assay enqueue: priority 0 -> 5 (2 waiting runs)");
  EXPECT_EQ(rows[4].experiment_id, result->experiment_id);
  EXPECT_EQ(store_->insert_experiment(changed, "t1", "req")->updated, updated) << "the first answer";
  EXPECT_THAT(store_->insert_experiment(changed, "t1", "")->updated, IsEmpty());
}

TEST_F(EnqueueTest, AutomaticMeansTheCpuForWhatOnlyTheCpuComputes) {
  ExperimentSpec spec = make_spec(2);
  spec.runs[0].config.precision = Precision::fp32;
  ASSERT_TRUE(store_->insert_experiment(spec, "t1", "").ok());
  EXPECT_EQ(get("run0").run.backend, Backend::cpu);
  EXPECT_EQ(get("run1").run.backend, Backend::automatic);
}

TEST_F(EnqueueTest, RepeatedRequestDoesItsWorkOnce) {
  auto first = store_->insert_experiment(make_spec(2), "t1", "req-1");
  ASSERT_TRUE(first.ok());
  clock_.advance_ms(1000);
  auto again = store_->insert_experiment(make_spec(2), "t1", "req-1");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->added, first->added) << "the first answer, not \"2 already there\"";
  EXPECT_EQ(again->experiment_id, first->experiment_id);
  EXPECT_EQ(again->already_there, 0);
  EXPECT_EQ(events().size(), 2u);
}

TEST_F(EnqueueTest, RequestIdOfAnotherMethodIsRefused) {
  apply_ok({RequestResult{"req-1", "cancel", "x"}});
  auto result = store_->insert_experiment(make_spec(1), "t1", "req-1");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(result.error().message, HasSubstr("was used for cancel"));
  EXPECT_THAT(names({}), IsEmpty());
}

TEST_F(EnqueueTest, NeedsATag) {
  auto result = store_->insert_experiment(make_spec(1), "", "");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
}

TEST_F(EnqueueTest, HostileTextIsOnlyText) {
  ExperimentSpec spec = make_spec(1);
  spec.text = std::string("'); DROP TABLE runs; --\0 after", 30);
  ASSERT_TRUE(store_->insert_experiment(spec, "'; DROP TABLE runs", "").ok());
  auto experiment = store_->find_experiment("'; DROP TABLE runs");
  ASSERT_TRUE(experiment.ok());
  EXPECT_EQ(experiment->spec_text, spec.text);
  EXPECT_EQ(names({}).size(), 1u);
}

}  // namespace
}  // namespace assay
