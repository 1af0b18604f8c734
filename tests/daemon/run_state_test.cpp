#include "daemon/run_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/limits.h"

namespace assay {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int event_kinds = std::ssize(words_of(RunEventKind{}));

constexpr int64_t now = 1'000'000;
constexpr int64_t epoch = 7;

RunLife waiting(RunState state) {
  return RunLife{.state = state};
}

RunLife live(AttemptState state) {
  RunLife life{.state = RunState::running, .attempts = 1};
  LiveAttempt a{.n = 1, .lease_epoch = epoch, .state = state};
  a.started = state != AttemptState::leased;
  if (state == AttemptState::running || state == AttemptState::stopping || state == AttemptState::unreachable)
    a.phase = Phase::step;
  if (state == AttemptState::stopping) a.stop = StopReason::stalled;
  life.attempt = a;
  return life;
}

RunEvent event_of(RunEventKind kind) {
  RunEvent event{.kind = kind, .at = now, .lease_epoch = epoch, .phase = Phase::step, .stop = StopReason::stalled};
  event.outcome.result = AttemptResult::completed;
  event.resumed_from_step = 40;
  return event;
}

RunEvent failure(FailureReason reason, std::string error = "boom") {
  RunEvent event = event_of(RunEventKind::attempt_ended);
  event.outcome.result = AttemptResult::failed;
  event.outcome.reason = reason;
  event.outcome.error = std::move(error);
  return event;
}

std::string show(const RunLife& life) {
  std::string text(to_string(life.state));
  if (life.attempt) text += "/" + std::string(to_string(life.attempt->state));
  return text;
}

std::string outcome_of(const RunLife& life, RunEventKind kind) {
  const auto t = apply(life, event_of(kind), {});
  return t.ok() ? show(t->next) : "-";
}

EventKind kind_of(const StateChange& change) {
  return std::visit([](const auto& of) { return of.kind; }, change);
}
std::string cause_of(const StateChange& change) {
  return std::visit([](const auto& of) { return of.cause; }, change);
}

Transition must(const RunLife& life, const RunEvent& event, const RunPolicy& policy = {}) {
  auto t = apply(life, event, policy);
  if (!t.ok()) throw std::runtime_error(t.error().message);
  return *t;
}

// Every pair of a state and an event. "-" = illegal. Columns in the order of RunEventKind.
TEST(RunState, EveryPairOfStateAndEvent) {
  struct Row {
    RunLife life;
    std::array<const char*, event_kinds> expected;
  };
  constexpr const char* no = "-";
  const Row rows[] = {
      // lease_granted started resumed progress stop_requested ended refused expired back lost | cancel retry hold
      // release backoff
      {waiting(RunState::queued),
       {"running/leased", no, no, no, no, no, no, no, no, no, "cancelled", no, "held", no, no}},
      {waiting(RunState::held), {no, no, no, no, no, no, no, no, no, no, "cancelled", no, no, "queued", no}},
      {waiting(RunState::retry_wait), {no, no, no, no, no, no, no, no, no, no, "cancelled", no, "held", no, "queued"}},
      {waiting(RunState::paused), {no, no, no, no, no, no, no, no, no, no, "cancelled", no, no, no, no}},
      {waiting(RunState::completed), {no, no, no, no, no, no, no, no, no, no, no, no, no, no, no}},
      {waiting(RunState::failed), {no, no, no, no, no, no, no, no, no, no, no, "queued", no, no, no}},
      {waiting(RunState::cancelled), {no, no, no, no, no, no, no, no, no, no, no, "queued", no, no, no}},
      {live(AttemptState::leased),
       {no, "running/starting", no, "running/running", "running/stopping", "completed", "queued", "running/unreachable",
        no, "queued", "running/stopping", no, no, no, no}},
      {live(AttemptState::starting),
       {no, no, "running/starting", "running/running", "running/stopping", "completed", no, "running/unreachable", no,
        "queued", "running/stopping", no, no, no, no}},
      {live(AttemptState::running),
       {no, no, "running/running", "running/running", "running/stopping", "completed", no, "running/unreachable", no,
        "queued", "running/stopping", no, no, no, no}},
      {live(AttemptState::stopping),
       {no, no, "running/stopping", "running/stopping", no, "completed", no, "running/unreachable", no, "queued",
        "running/stopping", no, no, no, no}},
      {live(AttemptState::unreachable),
       {no, no, "running/unreachable", no, no, "completed", no, no, "running/running", "queued", "running/unreachable",
        no, no, no, no}},
  };
  for (const Row& row : rows)
    for (int i = 0; i < event_kinds; ++i) {
      const auto kind = static_cast<RunEventKind>(i);
      EXPECT_EQ(outcome_of(row.life, kind), row.expected[static_cast<size_t>(i)])
          << show(row.life) << " + " << to_string(kind);
    }
}

TEST(RunState, AnIllegalEventSaysWhy) {
  EXPECT_EQ(apply(waiting(RunState::completed), event_of(RunEventKind::retry_requested), {}).error().message,
            "only failed and cancelled runs can be retried; it is completed");
  EXPECT_EQ(apply(waiting(RunState::failed), event_of(RunEventKind::cancel_requested), {}).error().message,
            "it is failed already");
  EXPECT_EQ(apply(waiting(RunState::queued), event_of(RunEventKind::attempt_ended), {}).error().message,
            "the run is queued and has no live attempt");
  EXPECT_EQ(apply(live(AttemptState::running), event_of(RunEventKind::hold), {}).error().message,
            "only waiting runs can be held; it is running");
}

TEST(RunState, AnOldEpochChangesNothing) {
  for (int i = 0; i < event_kinds; ++i) {
    RunEvent event = event_of(static_cast<RunEventKind>(i));
    if (event.kind < RunEventKind::attempt_started || event.kind > RunEventKind::worker_lost) continue;
    event.lease_epoch = epoch - 1;
    const auto t = apply(live(AttemptState::running), event, {});
    ASSERT_FALSE(t.ok()) << to_string(event.kind);
    EXPECT_EQ(t.error().code, ErrorCode::aborted);
    EXPECT_EQ(t.error().message, "lease epoch 6 is not the live attempt's, 7");
  }
}

TEST(RunState, RetriesAccordingToThePolicy) {
  RunPolicy policy;
  policy.retry = {.max_attempts = 2, .on = {FailureReason::crashed}, .backoff_s = 30};
  const Transition first = must(live(AttemptState::running), failure(FailureReason::crashed), policy);
  EXPECT_EQ(show(first.next), "retry_wait");
  EXPECT_EQ(first.next.not_before, now + 30'000);
  EXPECT_EQ(cause_of(first.changes.back()), "crashed: retry 1 of 1");

  EXPECT_EQ(show(must(live(AttemptState::running), failure(FailureReason::data_error), policy).next), "failed");
  RunLife second = live(AttemptState::running);
  second.attempts = 2;
  EXPECT_EQ(show(must(second, failure(FailureReason::crashed), policy).next), "failed");
  second.lost_attempts = 1;  // one of the two was the worker's fault
  EXPECT_EQ(show(must(second, failure(FailureReason::crashed), policy).next), "retry_wait");
  policy.retry.backoff_s = 0;
  EXPECT_EQ(show(must(second, failure(FailureReason::crashed), policy).next), "queued");
}

TEST(RunState, BackoffIsWaitedFor) {
  RunLife life = waiting(RunState::retry_wait);
  life.not_before = now + 1;
  EXPECT_EQ(apply(life, event_of(RunEventKind::backoff_elapsed), {}).error().message, "its backoff has not passed");
  life.not_before = now;
  EXPECT_EQ(must(life, event_of(RunEventKind::backoff_elapsed)).next, waiting(RunState::queued));
}

TEST(RunState, CancelIntentSurvivesWhateverTheAttemptDoes) {
  RunPolicy policy;
  policy.retry = {.max_attempts = 5, .on = {FailureReason::crashed}, .backoff_s = 0};
  const Transition cancelled = must(live(AttemptState::running), event_of(RunEventKind::cancel_requested), policy);
  EXPECT_THAT(cancelled.actions, ElementsAre(Action::send_stop));
  EXPECT_EQ(cancelled.next.attempt->stop, StopReason::cancelled);
  EXPECT_EQ(show(must(cancelled.next, failure(FailureReason::crashed), policy).next), "cancelled");
  EXPECT_EQ(show(must(cancelled.next, event_of(RunEventKind::worker_lost), policy).next), "cancelled");
  EXPECT_FALSE(apply(cancelled.next, event_of(RunEventKind::retry_requested), policy).ok());
  // What was finished before the stop reached it is finished.
  EXPECT_EQ(show(must(cancelled.next, event_of(RunEventKind::attempt_ended), policy).next), "completed");
  // A person may revive it, and only then is the intent gone.
  const Transition ended = must(cancelled.next, failure(FailureReason::crashed), policy);
  EXPECT_TRUE(ended.next.cancel_requested);
  EXPECT_FALSE(must(ended.next, event_of(RunEventKind::retry_requested), policy).next.cancel_requested);
}

TEST(RunState, AnUnreachableAttemptIsCancelledWhenItsWorkerIsBack) {
  const Transition asked = must(live(AttemptState::unreachable), event_of(RunEventKind::cancel_requested));
  EXPECT_TRUE(asked.actions.empty());  // nobody is there to be told
  const Transition back = must(asked.next, event_of(RunEventKind::worker_back));
  EXPECT_EQ(show(back.next), "running/stopping");
  EXPECT_THAT(back.actions, ElementsAre(Action::send_stop));
}

TEST(RunState, ALostWorkerDoesNotUseUpRetriesButHasAnEnd) {
  const Transition lost = must(live(AttemptState::running), event_of(RunEventKind::worker_lost));
  EXPECT_EQ(show(lost.next), "queued");
  EXPECT_EQ(lost.next.lost_attempts, 1);
  EXPECT_EQ(lost.ended->reason, FailureReason::worker_lost);
  EXPECT_THAT(lost.actions, ElementsAre(Action::free_devices));  // nobody is left to acknowledge to
  RunLife often = live(AttemptState::running);
  often.attempts = limits::max_attempts;
  EXPECT_EQ(show(must(often, event_of(RunEventKind::worker_lost)).next), "failed");
}

TEST(RunState, WhatNeverStartedGivesItsNumberBackAndUsesUpNothing) {
  RunEvent refused = event_of(RunEventKind::attempt_refused);
  refused.outcome.error = "worker w refused the lease: draining";
  RunEvent told = event_of(RunEventKind::attempt_ended);
  told.outcome.result = AttemptResult::stopped;
  for (const RunEvent& event : {refused, told, event_of(RunEventKind::worker_lost)}) {
    RunLife life = live(AttemptState::leased);
    life.attempts = life.attempt->n = limits::max_attempts;  // the last one that the run may have
    const Transition t = must(life, event);
    EXPECT_EQ(show(t.next), "queued");
    EXPECT_EQ(t.next.attempts, limits::max_attempts - 1);
    EXPECT_EQ(t.next.lost_attempts, 0);
    EXPECT_EQ(t.ended->result, AttemptResult::not_started);
    EXPECT_EQ(t.ended->reason, FailureReason::none);
    EXPECT_EQ(kind_of(t.changes.front()), EventKind::attempt_not_started);
    EXPECT_FALSE(cause_of(t.changes.front()).empty());
  }
  EXPECT_EQ(must(live(AttemptState::leased), refused).ended->error, "worker w refused the lease: draining");
}

TEST(RunState, AnAttemptThatEndsWithItsWorkerIsStoppedAndUsesUpNothing) {
  RunEvent stop = event_of(RunEventKind::stop_requested);
  stop.stop = StopReason::worker_stopped;
  const RunLife stopping = must(live(AttemptState::running), stop).next;
  RunEvent told = event_of(RunEventKind::attempt_ended);
  told.outcome.result = AttemptResult::stopped;
  // Told so by the worker, whoever asked it; or asked by us, whatever is told of the end.
  const std::pair<RunLife, RunEvent> cases[] = {{live(AttemptState::running), told},
                                                {live(AttemptState::starting), told},
                                                {stopping, told},
                                                {stopping, failure(FailureReason::worker_lost)},
                                                {stopping, event_of(RunEventKind::worker_lost)}};
  for (auto [life, event] : cases) {
    life.attempts = life.attempt->n = limits::max_attempts;
    const Transition t = must(life, event);
    EXPECT_EQ(show(t.next), "queued");
    EXPECT_EQ(t.next.attempts, limits::max_attempts);
    EXPECT_EQ(t.next.stopped_attempts, 1);
    EXPECT_EQ(t.next.lost_attempts, 0);
    EXPECT_EQ(t.ended->result, AttemptResult::stopped);
    EXPECT_EQ(t.ended->reason, FailureReason::none);
    EXPECT_EQ(kind_of(t.changes.front()), EventKind::attempt_stopped);
  }
  RunLife often = live(AttemptState::running);
  often.attempts = limits::max_attempts;
  often.stopped_attempts = 1;
  EXPECT_EQ(show(must(often, event_of(RunEventKind::worker_lost)).next), "queued");
  RunPolicy policy;
  policy.retry = {.max_attempts = 2, .on = {FailureReason::crashed}, .backoff_s = 0};
  often.attempts = 2;
  EXPECT_EQ(show(must(often, failure(FailureReason::crashed), policy).next), "queued");
  // A cancel that comes first, or last, is what counts for the run.
  const RunLife cancelled = must(stopping, event_of(RunEventKind::cancel_requested)).next;
  EXPECT_EQ(show(must(cancelled, told).next), "cancelled");
}

TEST(RunState, OnFailureStopsTheRest) {
  RunPolicy policy{.on_failure = OnFailure::stop_cell};
  EXPECT_THAT(must(live(AttemptState::running), failure(FailureReason::internal), policy).actions,
              Contains(Action::cancel_cell));
  policy.on_failure = OnFailure::stop_all;
  EXPECT_THAT(must(live(AttemptState::running), failure(FailureReason::internal), policy).actions,
              Contains(Action::cancel_experiment));
  EXPECT_THAT(must(live(AttemptState::running), event_of(RunEventKind::attempt_ended), policy).actions,
              testing::Not(Contains(Action::cancel_experiment)));
}

TEST(RunState, TheEventsSayWhatHappened) {
  const Transition t = must(live(AttemptState::running), failure(FailureReason::crashed, "SIGSEGV\nframe 0"));
  ASSERT_EQ(t.changes.size(), 2u);
  const auto& of_attempt = std::get<AttemptStateChange>(t.changes[0]);
  EXPECT_EQ(of_attempt.kind, EventKind::attempt_ended);
  EXPECT_EQ(of_attempt.cause, "failed: crashed: SIGSEGV");
  const auto& of_run = std::get<RunStateChange>(t.changes[1]);
  EXPECT_EQ(of_run.kind, EventKind::run_failed);
  EXPECT_EQ(of_run.from, RunState::running);
  EXPECT_EQ(of_run.to, RunState::failed);
}

TEST(RunState, WhatAnEventTellsOfTheAttemptIsStoredWithIt) {
  RunEvent started = event_of(RunEventKind::attempt_started);
  started.log_path = "/runs/a/log";
  EXPECT_EQ(must(live(AttemptState::leased), started).facts,
            (AttemptFacts{.started_at = now, .log_path = "/runs/a/log", .resumed_from_step = 40}));
  started.log_path.clear();
  started.resumed_from_step = -1;
  EXPECT_EQ(must(live(AttemptState::leased), started).facts, AttemptFacts{.started_at = now});

  const Transition resumed = must(live(AttemptState::running), event_of(RunEventKind::attempt_resumed));
  EXPECT_EQ(resumed.facts, AttemptFacts{.resumed_from_step = 40});
  EXPECT_TRUE(resumed.changes.empty()) << "the state stays";
  EXPECT_EQ(resumed.next, live(AttemptState::running));
  RunEvent from_nowhere = event_of(RunEventKind::attempt_resumed);
  from_nowhere.resumed_from_step = -1;
  EXPECT_FALSE(apply(live(AttemptState::running), from_nowhere, {}).ok());
}

TEST(RunState, AnEndWhoseStartWasNotToldIsItsStart) {
  EXPECT_EQ(must(live(AttemptState::leased), failure(FailureReason::crashed)).facts, AttemptFacts{.started_at = now});
  EXPECT_EQ(must(live(AttemptState::running), failure(FailureReason::crashed)).facts, AttemptFacts{});
  for (const AttemptResult result : {AttemptResult::stopped, AttemptResult::not_started}) {
    RunEvent event = event_of(RunEventKind::attempt_ended);
    event.outcome.result = result;
    EXPECT_EQ(must(live(AttemptState::leased), event).facts, AttemptFacts{}) << to_string(result);
  }
  EXPECT_EQ(must(live(AttemptState::leased), failure(FailureReason::worker_lost)).facts, AttemptFacts{});
}

// --- random walks --------------------------------------------------------------------------------------------------

// The state as the events table alone tells it.
struct Replayed {
  RunState run = RunState::queued;
  std::optional<AttemptState> attempt;
  int64_t attempts = 0;
  int64_t lost = 0;
  int64_t stopped = 0;
  bool cancel_requested = false;

  void operator()(const AttemptStateChange& change) {
    EXPECT_EQ(change.from, attempt) << to_string(change.kind);
    attempt = change.to;
    if (change.to == AttemptState::ended) attempt.reset();
    attempts += change.kind == EventKind::lease_granted;
    attempts -= change.kind == EventKind::attempt_not_started;
    lost += change.kind == EventKind::attempt_lost;
    stopped += change.kind == EventKind::attempt_stopped;
  }
  void operator()(const RunStateChange& change) {
    EXPECT_EQ(change.from, run) << to_string(change.kind);
    run = change.to;
    if (change.kind == EventKind::cancel_requested) cancel_requested = true;
    if (change.kind == EventKind::run_cancelled && change.cause == "assay cancel") cancel_requested = true;
    if (change.kind == EventKind::run_retried) cancel_requested = false;
  }
};

void check_invariants(const RunLife& life) {
  EXPECT_EQ(life.attempt.has_value(), life.state == RunState::running);
  EXPECT_LE(life.lost_attempts + life.stopped_attempts, life.attempts);
  const bool waits =
      life.state == RunState::queued || life.state == RunState::held || life.state == RunState::retry_wait;
  EXPECT_FALSE(waits && life.cancel_requested);
  EXPECT_EQ(life.not_before != 0, life.state == RunState::retry_wait);
  if (!life.attempt) return;
  EXPECT_EQ(life.attempt->n, life.attempts);
  const bool stops = life.attempt->stop != StopReason::none;
  EXPECT_TRUE(life.attempt->state == AttemptState::unreachable ||
              (life.attempt->state == AttemptState::stopping) == stops);
}

RunEvent random_event(std::mt19937& random, const RunLife& life, int64_t at, int64_t next_epoch) {
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto any = [&]<WordEnum E>(E) { return static_cast<E>(pick(std::ssize(words_of(E{})))); };
  RunEvent event{.kind = any(RunEventKind{}), .at = at, .cause = ""};
  event.lease_epoch = event.kind == RunEventKind::lease_granted ? next_epoch
                      : life.attempt                            ? life.attempt->lease_epoch - (pick(20) == 0)
                                                                : next_epoch - 1;
  event.phase = any(Phase{});
  event.resumed_from_step = pick(3) - 1;
  event.stop = any(StopReason{});
  event.outcome.result = any(AttemptResult{});
  if (event.outcome.result == AttemptResult::failed)
    while (event.outcome.reason == FailureReason::none) event.outcome.reason = any(FailureReason{});
  if (event.kind == RunEventKind::cancel_requested) event.cause = "assay cancel";
  return event;
}

TEST(RunState, RandomWalksKeepTheInvariantsAndReplayFromTheirEvents) {
  std::map<std::string, int> seen;
  for (unsigned seed = 0; seed < 80; ++seed) {
    std::mt19937 random(seed);
    RunPolicy policy;
    policy.retry = {.max_attempts = 3, .on = {FailureReason::crashed, FailureReason::stalled}, .backoff_s = seed % 3};
    RunLife life;
    Replayed replayed;
    int64_t at = now, next_epoch = 1;
    for (int i = 0; i < 5'000; ++i, at += 700) {
      const RunEvent event = random_event(random, life, at, next_epoch);
      const auto t = apply(life, event, policy);
      if (!t.ok()) {
        EXPECT_FALSE(t.error().message.empty());
        continue;
      }
      const bool given_back = t->ended && t->ended->result == AttemptResult::not_started;
      EXPECT_GE(t->next.attempts + given_back, life.attempts);
      EXPECT_EQ(t->ended.has_value(), life.attempt.has_value() && !t->next.attempt.has_value());
      if (event.kind == RunEventKind::lease_granted) ++next_epoch;
      life = t->next;
      for (const StateChange& change : t->changes) std::visit([&](const auto& of) { replayed(of); }, change);
      check_invariants(life);
      EXPECT_EQ(replayed.run, life.state);
      EXPECT_EQ(replayed.attempt, life.attempt ? std::optional(life.attempt->state) : std::nullopt);
      EXPECT_EQ(replayed.attempts, life.attempts);
      EXPECT_EQ(replayed.lost, life.lost_attempts);
      EXPECT_EQ(replayed.stopped, life.stopped_attempts);
      EXPECT_EQ(replayed.cancel_requested, life.cancel_requested);
      ++seen[show(life)];
      if (HasFailure()) FAIL() << "seed " << seed << " event " << i << " " << to_string(event.kind);
      if (life.state == RunState::completed) {  // nothing leaves it: start again
        life = RunLife{};
        replayed = Replayed{};
      }
    }
  }
  for (const char* state : {"queued", "held", "retry_wait", "failed", "cancelled", "completed", "running/leased",
                            "running/starting", "running/running", "running/stopping", "running/unreachable"})
    EXPECT_GT(seen[state], 10) << state;
}

}  // namespace
}  // namespace assay
