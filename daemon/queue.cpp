#include "daemon/queue.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/transition_rows.h"
#include "db/store_pair.h"
#include "spec/run_config_toml.h"

namespace assay {
Result<std::unique_ptr<Queue>> Queue::open(RunStore& runs, MetricStore& metrics, const Clock& clock, std::string home) {
  std::unique_ptr<Queue> queue(new Queue(runs, metrics, clock, std::move(home)));
  ASSAY_TRY(tie_stores(runs, metrics));
  ASSAY_TRY(queue->load());
  // Nobody is connected to a daemon that has just started, whatever its former life wrote.
  for (auto& [id, worker] : queue->workers_)
    if (worker.row.state == WorkerState::connected)
      queue->stage({WorkerChange{id, WorkerState::disconnected, "the daemon was started"}});
  ASSAY_TRY(queue->commit());
  return queue;
}

Status Queue::load() {
  ASSAY_ASSIGN(held_, runs_.queue_held());
  ASSAY_ASSIGN(const auto workers, runs_.list_workers());
  for (const WorkerRow& row : workers) workers_[row.id].row = row;
  ASSAY_ASSIGN(const auto attempts, runs_.live_attempts());
  for (const AttemptContext& context : attempts) take_over(context);
  return {};
}

// A live attempt as the store has it: just granted, or of an earlier life of the daemon. The latter's lease gets its
// full time again, because its worker may need that long to find the new daemon.
void Queue::take_over(const AttemptContext& context) {
  const AttemptRow& attempt = context.attempt;
  Subject subject{context.run.id,       context.run.experiment_id, attempt.id,         context.run.name,
                  context.run.cell_key, attempt.worker_id,         context.device_ids, life_of(context.run)};
  subject.life.attempt = live_attempt_of(attempt, context.run.cancel_requested);
  live_[attempt.id] = std::move(subject);
  std::optional<int64_t> running_ms;
  if (attempt.started_at != 0) running_ms = std::max<int64_t>(0, clock_.unix_ms() - attempt.started_at);
  leases_.watch(attempt.id, attempt.phase, timeout_of(context.run), running_ms);
  if (live_[attempt.id].life.attempt->stop != StopReason::none) leases_.stopping(attempt.id);
  if (attempt.state == AttemptState::unreachable) leases_.expire(attempt.id);
}

Status Queue::reload(const Error& why) {
  log::error("nothing of the last changes was stored: {}", why.message);
  for (auto& [id, worker] : workers_)
    if (worker.link) worker.link->close("the daemon could not store its state; come back");
  workers_.clear();
  live_.clear();
  leases_.clear();
  policies_.clear();
  forget_staged();
  outbox_.clear();
  assign_ = true;
  if (Status loaded = load(); !loaded.ok()) log::error("reading the queue again failed: {}", loaded.error().message);
  return why;
}

// The store cannot be read: what is staged in memory may be half of something, so the next commit drops it all.
Status Queue::fail(const Error& error) {
  broken_ = error;
  return error;
}

Result<RunPolicy> Queue::policy_of(int64_t experiment_id) {
  if (const auto known = policies_.find(experiment_id); known != policies_.end()) return known->second;
  ASSAY_ASSIGN(const ExperimentRow row, runs_.get_experiment(experiment_id));
  return policies_[experiment_id] = RunPolicy{row.retry, row.on_failure};
}

Queue::Subject Queue::subject_of(const ListedRun& listed) const {
  const RunRow& run = listed.run;
  if (listed.latest)
    if (const auto it = live_.find(listed.latest->id); it != live_.end()) return it->second;
  Subject subject{run.id, run.experiment_id, 0, run.name, run.cell_key, {}, {}, life_of(run)};
  if (const auto it = staged_.find(run.id); it != staged_.end()) subject.life = it->second;
  return subject;
}

void Queue::keep(const Subject& subject, int64_t attempt_id) {
  if (subject.life.attempt) {
    live_[attempt_id] = subject;
  } else {
    if (attempt_id != 0) live_.erase(attempt_id);
    staged_[subject.run_id] = subject.life;
    assign_again_ |= subject.life.state == RunState::queued;  // the store's claims show it after the commit
  }
}

// One event on one run: its changes are appended to `list` (one group of the commit) and `subject` is what it becomes.
Status Queue::advance(Subject& subject, RunEvent event, ChangeList& list, const AttemptFacts& facts) {
  event.at = clock_.unix_ms();
  const auto policy = policy_of(subject.experiment_id);
  if (!policy.ok()) return fail(policy.error());
  ASSAY_ASSIGN(const Transition t, apply(subject.life, event, *policy));
  const Subject before = subject;
  ChangeList changes = rows_of(subject.run_id, subject.attempt_id, subject.life, t);
  auto row = std::find_if(changes.begin(), changes.end(),
                          [](const Change& c) { return std::holds_alternative<AttemptChange>(c); });
  if (facts.started_at || facts.log_path || facts.resumed_from_step) {
    if (row == changes.end()) {
      AttemptChange quiet{.attempt_id = subject.attempt_id, .lease_epoch = event.lease_epoch};
      quiet.from = subject.life.attempt->state;
      row = changes.insert(changes.end(), std::move(quiet));
    }
    auto& attempt = std::get<AttemptChange>(*row);
    attempt.started_at = facts.started_at;
    attempt.log_path = facts.log_path;
    attempt.resumed_from_step = facts.resumed_from_step;
  }
  events_staged_ |= !t.changes.empty();
  ends_staged_ |= t.ended.has_value();
  list.insert(list.end(), std::make_move_iterator(changes.begin()), std::make_move_iterator(changes.end()));
  subject.life = t.next;
  keep(subject, before.attempt_id);
  if (!subject.life.attempt) assign_ = true;
  return perform(before, subject, t.actions, list);
}

Status Queue::perform(const Subject& before, Subject& after, const std::vector<Action>& actions, ChangeList& list) {
  const LeaseKey lease{before.attempt_id, before.life.attempt ? before.life.attempt->lease_epoch : 0};
  for (const Action action : actions) {
    switch (action) {
      case Action::send_lease:
        break;  // after the commit, which numbers it: start_leases
      case Action::send_stop:
        leases_.stopping(lease.attempt_id);
        send(before.worker_id, StopMessage{lease, after.life.attempt->stop});
        break;
      case Action::acknowledge_end:
        send(before.worker_id, EventAckMessage{lease, AttemptNews::ended});
        break;
      case Action::free_devices:
        leases_.forget(lease.attempt_id);
        after.attempt_id = 0;
        after.device_ids.clear();
        break;
      case Action::cancel_cell:
        ASSAY_TRY(cancel_others(after, true, list));
        break;
      case Action::cancel_experiment:
        ASSAY_TRY(cancel_others(after, false, list));
        break;
    }
  }
  return {};
}

Status Queue::cancel_others(const Subject& failed, bool only_cell, ChangeList& list) {
  RunFilter filter;
  filter.experiment_id = failed.experiment_id;
  if (only_cell) filter.cell_key = failed.cell_key;
  filter.states = live_states();
  const auto others = runs_.list_runs(filter);
  if (!others.ok()) return fail(others.error());
  for (const ListedRun& other : *others) {
    Subject subject = subject_of(other);
    if (subject.run_id == failed.run_id || is_terminal(subject.life.state) || subject.life.cancel_requested) continue;
    RunEvent event{.kind = RunEventKind::cancel_requested};
    event.cause = fmt::format("{} failed and on_failure is \"{}\"", failed.name, only_cell ? "stop_cell" : "stop_all");
    ASSAY_TRY(advance(subject, event, list));
  }
  return {};
}

void Queue::stage(ChangeList list) {
  if (!list.empty()) groups_.push_back(std::move(list));
}

// --- commit ---------------------------------------------------------------------------------------------------------

Status Queue::commit() {
  ASSAY_TRY(commit_once());
  // Runs that the last commit put back into the queue were not visible to the store's claims before it.
  if (assign_) ASSAY_TRY(commit_once());
  return {};
}

void Queue::forget_staged() {
  groups_.clear();
  grants_.clear();
  staged_.clear();
  staged_requests_.clear();
  ends_staged_ = false;
  broken_.reset();
}

Status Queue::commit_once() {
  if (broken_) return reload(Error(*broken_));
  const size_t inputs = groups_.size();
  assign_devices();
  if (!groups_.empty()) {
    // Of an ended attempt nobody sends a step again: they are on disk before its end is.
    if (ends_staged_)
      if (Status synced = metrics_.sync(); !synced.ok()) return reload(synced.error());
    auto applied = runs_.apply_groups(groups_);
    if (!applied.ok()) return reload(applied.error());
    for (size_t i = 0; i < inputs; ++i)
      if (!(*applied)[i].ok()) return reload((*applied)[i].error());
    if (Status started = start_leases(*applied); !started.ok()) return reload(started.error());
  }
  // Before a lease is sent, so that metrics.db knows of every attempt that has steps.
  if (!groups_.empty() || events_staged_) note_mark();
  forget_staged();
  assign_ |= std::exchange(assign_again_, false);
  for (auto& [link, order] : outbox_) link->send(std::move(order));
  outbox_.clear();
  if (std::exchange(events_staged_, false) && events_written_) events_written_();
  return {};
}

// What it says is stored: if metrics.db cannot take the note, it takes no steps either.
void Queue::note_mark() {
  const auto mark = runs_.mark();
  if (const Status noted = mark.ok() ? metrics_.note(*mark) : Status(mark.error()); !noted.ok())
    log::error("how far the queue has come was not noted: {}", noted.error().message);
}

void Queue::send(const std::string& worker_id, DaemonMessage message) {
  const auto it = workers_.find(worker_id);
  if (it != workers_.end() && it->second.link) outbox_.emplace_back(it->second.link, std::move(message));
}

}  // namespace assay
