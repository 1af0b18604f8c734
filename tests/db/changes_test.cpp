#include <filesystem>
#include <limits>

#include "store_fixture.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ChangesTest : public StoreTest {
 protected:
  ChangesTest() { add_worker(); }
};

TEST_F(ChangesTest, ARunsWholeLifeIsInTheFeedWithItsCauses) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  EXPECT_EQ(attempt.n, 1);
  clock_.advance_ms(10);
  AttemptChange started = step_to(attempt, AttemptState::leased, AttemptState::running);
  started.phase = Phase::step;
  started.started_at = clock_.unix_ms();
  started.log_path = "/home/log";
  started.resumed_from_step = 40;
  started.cause = "worker said so";
  apply_ok({started});
  clock_.advance_ms(10);
  apply_ok({end(attempt, completed(), AttemptState::running), move(run, RunState::running, RunState::completed)});

  ListedRun listed = get("run0");
  EXPECT_EQ(listed.run.state, RunState::completed);
  EXPECT_EQ(listed.run.attempts, 1);
  EXPECT_EQ(listed.run.finished_at, clock_.unix_ms());
  ASSERT_TRUE(listed.latest.has_value());
  EXPECT_EQ(listed.latest->state, AttemptState::ended);
  EXPECT_EQ(listed.latest->phase, Phase::step);
  EXPECT_EQ(listed.latest->started_at, clock_.unix_ms() - 10);
  EXPECT_EQ(listed.latest->finished_at, clock_.unix_ms());
  EXPECT_EQ(listed.latest->log_path, "/home/log");
  EXPECT_EQ(listed.latest->resumed_from_step, 40);
  EXPECT_EQ(listed.latest->outcome.result, AttemptResult::completed);
  EXPECT_EQ(listed.latest->outcome.exit_code, 0);

  auto feed = store_->events_after(0, 0, run);
  std::vector<std::string> lines;
  for (const auto& e : *feed) lines.push_back(std::string(to_string(e.kind)) + " " + e.from_state + ">" + e.to_state);
  EXPECT_THAT(lines, ElementsAre("run_enqueued >queued", "run_requeued queued>running", "lease_granted >leased",
                                 "attempt_running leased>running", "attempt_ended running>ended",
                                 "run_requeued running>completed"));
  EXPECT_EQ((*feed)[3].cause, "worker said so");
  EXPECT_EQ((*feed)[3].attempt_id, attempt.id);
  EXPECT_EQ((*feed)[3].experiment_id, listed.run.experiment_id);
}

TEST_F(ChangesTest, PathsFollowTheFolderOfTheDatabase) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  AttemptChange started = step_to(attempt, AttemptState::leased, AttemptState::running);
  started.log_path = folder_.path() + "/runs/a/trainer.log";
  apply_ok({started});
  EXPECT_EQ(get("run0").latest->log_path, folder_.path() + "/runs/a/trainer.log");
  EXPECT_EQ(store_->get_attempt(attempt.id)->attempt.log_path, folder_.path() + "/runs/a/trainer.log");
  store_.reset();
  const TempFolder moved;
  std::filesystem::copy(folder_.path(), moved.path(), std::filesystem::copy_options::recursive);
  auto opened = RunStore::open(moved.file("queue.db"), clock_);
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_EQ((*opened)->attempts_of(run)->at(0).log_path, moved.path() + "/runs/a/trainer.log");
  EXPECT_EQ((*opened)->list_runs({})->at(0).latest->log_path, moved.path() + "/runs/a/trainer.log");
}

TEST_F(ChangesTest, OutcomeIsKeptWholeWithinItsLimits) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  AttemptOutcome outcome = failed(FailureReason::out_of_memory);
  outcome.error = std::string(20'000, 'e');
  outcome.operation = "gemm";
  outcome.tensor = "layers.3.w";
  outcome.peak_mem_mib = 12.5;
  outcome.log_tail = std::string(9'000, 'a') + "last line";
  apply_ok({end(attempt, outcome), move(run, RunState::running, RunState::failed)});
  AttemptOutcome stored = store_->attempts_of(run)->at(0).outcome;
  EXPECT_EQ(stored.reason, FailureReason::out_of_memory);
  EXPECT_EQ(stored.error.size(), 8'192u);
  EXPECT_EQ(stored.operation, "gemm");
  EXPECT_EQ(stored.tensor, "layers.3.w");
  EXPECT_EQ(stored.step, 7);
  EXPECT_EQ(stored.signal, 11);
  EXPECT_EQ(stored.exit_code, -1);
  EXPECT_EQ(stored.peak_mem_mib, 12.5);
  EXPECT_EQ(stored.log_tail.size(), 4'096u);
  EXPECT_THAT(stored.log_tail, testing::EndsWith("alast line")) << "the end of a log is what matters";
}

TEST_F(ChangesTest, APeakThatIsNoNumberDoesNotKeepAnAttemptFromEnding) {
  int64_t run = enqueue(1)[0];
  AttemptOutcome outcome = failed();
  outcome.peak_mem_mib = std::numeric_limits<double>::quiet_NaN();
  apply_ok({end(start(run), outcome)});
  EXPECT_EQ(store_->attempts_of(run)->at(0).outcome.peak_mem_mib, 0);
}

TEST_F(ChangesTest, LostRaceOnARunIsAbortedAndWritesNothing) {
  auto runs = enqueue(2);
  int64_t before = *store_->last_event_id();
  Error error = apply_error(
      {move(runs[0], RunState::queued, RunState::cancelled), move(runs[1], RunState::running, RunState::completed)});
  EXPECT_EQ(error.code, ErrorCode::aborted);
  EXPECT_THAT(error.message, HasSubstr("is queued, not running"));
  EXPECT_EQ(state_of(runs[0]), RunState::queued) << "the first change of the list is undone too";
  EXPECT_EQ(*store_->last_event_id(), before);
}

TEST_F(ChangesTest, AnOldEpochChangesNothing) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  AttemptRow stale = attempt;
  stale.lease_epoch -= 1;
  Error error = apply_error({end(stale, completed())});
  EXPECT_EQ(error.code, ErrorCode::aborted);
  EXPECT_THAT(error.message, HasSubstr("lease epoch"));
  EXPECT_EQ(get("run0").latest->state, AttemptState::leased);
}

TEST_F(ChangesTest, LostRaceOnAnAttemptIsAborted) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  Error error = apply_error({step_to(attempt, AttemptState::running, AttemptState::stopping)});
  EXPECT_EQ(error.code, ErrorCode::aborted);
  EXPECT_THAT(error.message, HasSubstr("is leased, not running"));
}

TEST_F(ChangesTest, AnEndedAttemptNeverChanges) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  finish(run, attempt);
  Error error = apply_error({end(attempt, failed(), AttemptState::ended)});
  EXPECT_EQ(error.code, ErrorCode::failed_precondition);
  EXPECT_THAT(error.message, HasSubstr("an ended attempt is never changed"));
  EXPECT_EQ(get("run0").latest->outcome.result, AttemptResult::completed);
}

TEST_F(ChangesTest, OutcomeComesWithTheEndAndOnlyThen) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  EXPECT_EQ(apply_error({step_to(attempt, AttemptState::leased, AttemptState::ended)}).code,
            ErrorCode::invalid_argument);
  AttemptChange early = step_to(attempt, AttemptState::leased, AttemptState::running);
  early.outcome = completed();
  EXPECT_EQ(apply_error({early}).code, ErrorCode::invalid_argument);
}

TEST_F(ChangesTest, AFailureHasAReasonAndASuccessHasNone) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  EXPECT_THAT(apply_error({end(attempt, failed(FailureReason::none))}).message, HasSubstr("failed_has_reason"));
  AttemptOutcome odd = completed();
  odd.reason = FailureReason::crashed;
  EXPECT_THAT(apply_error({end(attempt, odd)}).message, HasSubstr("failed_has_reason"));
}

TEST_F(ChangesTest, PhaseChangeWritesNoEvent) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  int64_t before = *store_->last_event_id();
  AttemptChange phase{.attempt_id = attempt.id, .lease_epoch = attempt.lease_epoch, .phase = Phase::step};
  apply_ok({phase});
  EXPECT_EQ(get("run0").latest->phase, Phase::step);
  EXPECT_EQ(*store_->last_event_id(), before);
}

TEST_F(ChangesTest, EpochsGrowOverRunsAndRestarts) {
  auto runs = enqueue(2);
  AttemptRow first = start(runs[0]);
  finish(runs[0], first, RunState::failed);
  reopen();
  AttemptRow second = start(runs[1]);
  finish(runs[1], second);
  AttemptRow third = start(runs[0], {"d0"}, RunState::failed);
  EXPECT_LT(first.lease_epoch, second.lease_epoch);
  EXPECT_LT(second.lease_epoch, third.lease_epoch);
  EXPECT_EQ(third.n, 2) << "a retry adds an attempt";
  auto attempts = store_->attempts_of(runs[0]);
  ASSERT_EQ(attempts->size(), 2u);
  EXPECT_EQ(attempts->at(0).outcome.result, AttemptResult::failed) << "the old one stays";
  EXPECT_EQ(attempts->at(1).state, AttemptState::leased);
}

TEST_F(ChangesTest, OneLiveAttemptPerRun) {
  int64_t run = enqueue(1)[0];
  start(run, {"d0"});
  Error error = apply_error({lease(run, {"d1"})});
  EXPECT_EQ(error.code, ErrorCode::aborted);
  EXPECT_THAT(error.message, HasSubstr("still alive"));
}

TEST_F(ChangesTest, OnlyARunningRunGetsAnAttempt) {
  int64_t run = enqueue(1)[0];
  Error error = apply_error({lease(run)});
  EXPECT_EQ(error.code, ErrorCode::failed_precondition);
  EXPECT_THAT(error.message, HasSubstr("is queued"));
}

TEST_F(ChangesTest, UnknownRowsAreNamed) {
  EXPECT_THAT(apply_error({move(77, RunState::queued, RunState::held)}).message, "there is no run 77");
  EXPECT_THAT(apply_error({lease(77)}).message, "there is no run 77");
  EXPECT_THAT(apply_error({end({.id = 78}, completed())}).message, "there is no attempt 78");
  EXPECT_THAT(apply_error({WorkerChange{"w9", WorkerState::disconnected, ""}}).message, "there is no worker w9");
  EXPECT_THAT(apply_error({DeviceChange{"d9", "python3 (pid 7)"}}).message, "there is no device d9");
  int64_t run = enqueue(1)[0];
  Error error = apply_error({move(run, RunState::queued, RunState::running), lease(run, {}, "w9")});
  EXPECT_EQ(error.code, ErrorCode::not_found);
  EXPECT_EQ(error.message, "there is no worker w9");
}

TEST_F(ChangesTest, CancelIntentSurvivesARacingRetry) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  RunChange cancel{
      .run_id = run, .from = RunState::running, .cancel_requested = true, .kind = EventKind::cancel_requested};
  apply_ok({cancel});
  EXPECT_TRUE(get("run0").run.cancel_requested);
  Error error = apply_error({end(attempt, failed()), move(run, RunState::running, RunState::retry_wait)});
  EXPECT_EQ(error.code, ErrorCode::failed_precondition);
  EXPECT_THAT(error.message, HasSubstr("cancelled_run_is_not_revived"));
  EXPECT_EQ(state_of(run), RunState::running);
  apply_ok({end(attempt, {.result = AttemptResult::cancelled}), move(run, RunState::running, RunState::cancelled)});
  RunChange retry = move(run, RunState::cancelled, RunState::queued);
  retry.cancel_requested = false;
  apply_ok({retry});
  ListedRun again = get("run0");
  EXPECT_EQ(again.run.state, RunState::queued);
  EXPECT_EQ(again.run.finished_at, 0);
}

TEST_F(ChangesTest, RetryWaitKeepsItsTimeAndLosesItOnLeaving) {
  int64_t run = enqueue(1)[0];
  AttemptRow attempt = start(run);
  RunChange wait = move(run, RunState::running, RunState::retry_wait);
  wait.not_before = clock_.unix_ms() + 30'000;
  wait.count_lost_attempt = true;
  apply_ok({end(attempt, failed(FailureReason::worker_lost)), wait});
  EXPECT_EQ(get("run0").run.not_before, clock_.unix_ms() + 30'000);
  EXPECT_EQ(get("run0").run.lost_attempts, 1);
  EXPECT_EQ(*store_->next_retry_at(), clock_.unix_ms() + 30'000);
  EXPECT_THAT(candidates(), IsEmpty());
  clock_.advance_ms(30'000);
  EXPECT_THAT(candidates(), ElementsAre(run));
  apply_ok({move(run, RunState::retry_wait, RunState::held)});
  EXPECT_EQ(get("run0").run.not_before, 0);
  EXPECT_FALSE(store_->next_retry_at()->has_value());
}

TEST_F(ChangesTest, AnAttemptThatNeverStartedIsInTheFeedAlone) {
  int64_t run = enqueue(1)[0];
  AttemptRow first = start(run);
  apply_ok({end(first, failed()), move(run, RunState::running, RunState::queued)});
  AttemptRow refused = start(run);
  EXPECT_EQ(refused.n, 2);
  RunChange back = move(run, RunState::running, RunState::queued);
  apply_ok({end(refused, {.result = AttemptResult::not_started, .error = "no space left"}), back});
  EXPECT_EQ(get("run0").run.attempts, 1);
  EXPECT_EQ(get("run0").latest->id, first.id);
  EXPECT_EQ(store_->attempts_of(run)->size(), 1u);
  EXPECT_EQ(store_->get_attempt(refused.id)->attempt.n, 0);
  EXPECT_EQ(*store_->why_not_started(run), "no space left");
  EXPECT_EQ(candidates().size(), 1u) << "its device is free again";
  reopen();
  AttemptRow second = start(run);
  EXPECT_EQ(second.n, 2) << "the number is used by the next one";
  EXPECT_GT(second.id, refused.id);
  EXPECT_NE(store_->attempt_key(second), store_->attempt_key(refused));
  back.count_stopped_attempt = true;
  apply_ok({end(second, {.result = AttemptResult::stopped}), back});
  EXPECT_EQ(get("run0").run.stopped_attempts, 1);
  EXPECT_EQ(get("run0").latest->outcome.result, AttemptResult::stopped);
  EXPECT_EQ(*store_->why_not_started(run), "");
}

TEST_F(ChangesTest, AChangeThatTheFeedTellsOfSaysOfWhatKindItIs) {
  const int64_t run = enqueue(1)[0];
  const Error of_run = apply_error({RunChange{.run_id = run, .to = RunState::held}});
  EXPECT_EQ(of_run.code, ErrorCode::invalid_argument);
  EXPECT_THAT(of_run.message, HasSubstr("needs the kind of its event"));
  const AttemptRow attempt = start(run);
  AttemptChange change = step_to(attempt, AttemptState::leased, AttemptState::running);
  change.kind.reset();
  EXPECT_EQ(apply_error({change}).code, ErrorCode::invalid_argument);
}

TEST_F(ChangesTest, WhyAnAttemptWasToldToStopIsKept) {
  const int64_t run = enqueue(1)[0];
  const AttemptRow attempt = start(run);
  AttemptChange change = step_to(attempt, AttemptState::leased, AttemptState::stopping);
  EXPECT_THAT(apply_error({change}).message, HasSubstr("stopping_has_reason"));
  change.stop = StopReason::timeout;
  apply_ok({change});
  reopen();
  EXPECT_EQ(store_->live_attempts()->at(0).attempt.stop, StopReason::timeout);
  apply_ok({end(attempt, failed(FailureReason::timeout), AttemptState::stopping)});
  EXPECT_EQ(store_->get_attempt(attempt.id)->attempt.stop, StopReason::timeout);
}

TEST_F(ChangesTest, ClaimsGoByPriorityThenAge) {
  auto low = enqueue(2, "low", 0);
  auto high = enqueue(2, "high", 9);
  EXPECT_THAT(candidates(), ElementsAre(high[0], high[1], low[0], low[1]));
  EXPECT_THAT(candidates(3), ElementsAre(high[0], high[1], low[0]));
  apply_ok({move(high[0], RunState::queued, RunState::held)});
  EXPECT_THAT(candidates(1), ElementsAre(high[1]));
  ExperimentSpec raised = make_spec(2);
  raised.priority = 10;
  ASSERT_TRUE(store_->insert_experiment(raised, "low", "").ok());
  EXPECT_THAT(candidates(1), ElementsAre(low[0]));
}

TEST_F(ChangesTest, AHeldQueueGivesNothingOut) {
  enqueue(1);
  apply_ok({RunStore::hold_queue(true, "assay hold")});
  EXPECT_TRUE(*store_->queue_held());
  EXPECT_THAT(candidates(), IsEmpty());
  reopen();
  EXPECT_TRUE(*store_->queue_held()) << "a hold survives a restart";
  apply_ok({RunStore::hold_queue(false, "assay release")});
  apply_ok({RunStore::hold_queue(false, "again")});
  EXPECT_EQ(candidates().size(), 1u);
  auto feed = events();
  EXPECT_EQ(feed[feed.size() - 2].kind, EventKind::queue_held);
  EXPECT_EQ(feed.back().kind, EventKind::queue_released);
  EXPECT_EQ(feed.back().cause, "assay release") << "a release that changes nothing is no event";
}

TEST_F(ChangesTest, GroupsCommitTogetherButFailAlone) {
  auto runs = enqueue(3);
  auto results = store_->apply_groups({{move(runs[0], RunState::queued, RunState::running), lease(runs[0], {"d0"})},
                                       {move(runs[1], RunState::queued, RunState::running), lease(runs[1], {"d0"})},
                                       {move(runs[2], RunState::queued, RunState::running), lease(runs[2], {"d1"})}});
  ASSERT_TRUE(results.ok()) << results.error().message;
  ASSERT_TRUE((*results)[0].ok());
  ASSERT_FALSE((*results)[1].ok());
  EXPECT_EQ((*results)[1].error().code, ErrorCode::aborted);
  ASSERT_TRUE((*results)[2].ok());
  EXPECT_EQ((*results)[2]->attempts.size(), 1u);
  reopen();
  EXPECT_EQ(state_of(runs[0]), RunState::running);
  EXPECT_EQ(state_of(runs[1]), RunState::queued);
  EXPECT_EQ(state_of(runs[2]), RunState::running);
  EXPECT_EQ(store_->live_attempts()->size(), 2u);
}

TEST_F(ChangesTest, LiveAttemptsAreWhatARestartedDaemonTakesOver) {
  auto runs = enqueue(2);
  AttemptRow first = start(runs[0], {"d0"});
  finish(runs[0], first);
  AttemptRow second = start(runs[1], {"d1", "d0"});
  reopen();
  auto live = store_->live_attempts();
  ASSERT_EQ(live->size(), 1u);
  const AttemptContext& context = live->at(0);
  EXPECT_EQ(context.attempt.id, second.id);
  EXPECT_EQ(context.attempt.lease_epoch, second.lease_epoch);
  EXPECT_EQ(context.run.name, "run1");
  EXPECT_EQ(context.experiment, "ablation");
  EXPECT_EQ(context.tag, "t1");
  EXPECT_THAT(context.run.config_toml, HasSubstr("seed"));
  EXPECT_THAT(context.device_ids, ElementsAre("d0", "d1"));
  auto ended = store_->get_attempt(first.id);
  ASSERT_TRUE(ended.ok());
  EXPECT_EQ(ended->attempt.state, AttemptState::ended);
  EXPECT_THAT(ended->device_ids, IsEmpty());
  EXPECT_EQ(store_->get_attempt(99).error().message, "there is no attempt 99");
}

}  // namespace
}  // namespace assay
