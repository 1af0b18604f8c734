#include "daemon/transition_rows.h"

#include <gtest/gtest.h>

namespace assay {
namespace {

constexpr int64_t now = 1'000'000;

// The rows of one event on the subject, which becomes what the event makes of it.
ChangeList rows_after(Subject& subject, RunEvent event) {
  event.at = now;
  const auto t = apply(subject.life, event, {});
  if (!t.ok()) throw std::runtime_error(t.error().message);
  ChangeList rows = rows_of(subject, *t);
  subject.life = t->next;
  return rows;
}

// Nobody but the state machine says which rows a lease has.
TEST(TransitionRows, ALeaseIsTheRunsWayAndTheNewAttempt) {
  Subject subject{.run_id = 3, .worker_id = "w", .device_ids = {"gpu0", "gpu1"}};
  subject.life = {.state = RunState::retry_wait, .attempts = 2, .lost_attempts = 1, .not_before = now};
  const ChangeList due = rows_after(subject, {.kind = RunEventKind::backoff_elapsed});
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(std::get<RunChange>(due[0]).from, RunState::retry_wait);
  EXPECT_EQ(std::get<RunChange>(due[0]).to, RunState::queued);

  const ChangeList rows = rows_after(subject, {.kind = RunEventKind::lease_granted, .cause = "worker w"});
  ASSERT_EQ(rows.size(), 2u);
  const auto& of_run = std::get<RunChange>(rows[0]);
  EXPECT_EQ(of_run.run_id, 3);
  EXPECT_EQ(of_run.from, RunState::queued);
  EXPECT_EQ(of_run.to, RunState::running);
  EXPECT_FALSE(of_run.count_lost_attempt);
  const auto& attempt = std::get<NewAttempt>(rows[1]);
  EXPECT_EQ(attempt.run_id, 3);
  EXPECT_EQ(attempt.worker_id, "w");
  EXPECT_EQ(attempt.device_ids, subject.device_ids);
  EXPECT_EQ(attempt.cause, "worker w");
  EXPECT_EQ(subject.life.attempt->n, 3);
}

TEST(TransitionRows, FactsAloneAreAChangeOfTheAttemptWithoutAnEvent) {
  Subject subject{.run_id = 3, .attempt_id = 9};
  subject.life = {.state = RunState::running, .attempts = 1};
  subject.life.attempt = LiveAttempt{.n = 1, .lease_epoch = 7, .state = AttemptState::running, .phase = Phase::step};
  subject.life.attempt->started = true;
  RunEvent resumed = event_about({9, 7}, RunEventKind::attempt_resumed);
  resumed.resumed_from_step = 40;
  const ChangeList rows = rows_after(subject, resumed);
  ASSERT_EQ(rows.size(), 1u);
  const auto& row = std::get<AttemptChange>(rows[0]);
  EXPECT_EQ(row.attempt_id, 9);
  EXPECT_EQ(row.lease_epoch, 7);
  EXPECT_EQ(row.from, AttemptState::running);
  EXPECT_FALSE(row.to.has_value());
  EXPECT_FALSE(row.kind.has_value());
  EXPECT_EQ(row.resumed_from_step, 40);
  EXPECT_FALSE(row.started_at.has_value());

  RunEvent same = event_about({9, 7}, RunEventKind::progress);
  same.phase = Phase::step;
  EXPECT_TRUE(rows_after(subject, same).empty()) << "what is known already is no row";
}

}  // namespace
}  // namespace assay
