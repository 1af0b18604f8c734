#include "daemon/run_transitions.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

namespace assay {

// --- what is known ---------------------------------------------------------------------------------------------------

Subject RunTransitions::subject_of(const ListedRun& listed) const {
  if (listed.latest)
    if (const Subject* subject = live(listed.latest->id)) return *subject;
  Subject subject = assay::subject_of(listed.run);
  if (const auto it = changed_.find(subject.run_id); it != changed_.end()) subject.life = it->second;
  return subject;
}

const Subject* RunTransitions::live(int64_t attempt_id) const {
  const auto it = live_.find(attempt_id);
  return it == live_.end() ? nullptr : &it->second;
}

const Subject* RunTransitions::live(const LeaseKey& lease, const std::string& worker_id) const {
  const Subject* subject = live(lease.attempt_id);
  return subject && subject->worker_id == worker_id && subject->lease() == lease ? subject : nullptr;
}

std::vector<Subject> RunTransitions::all_live() const {
  std::vector<Subject> subjects;
  for (const auto& [id, subject] : live_) subjects.push_back(subject);
  return subjects;
}

std::set<std::string> RunTransitions::busy_devices() const {
  std::set<std::string> busy;
  for (const auto& [id, subject] : live_) busy.insert(subject.device_ids.begin(), subject.device_ids.end());
  return busy;
}

Result<RunPolicy> RunTransitions::policy_of(int64_t experiment_id) {
  if (const auto known = policies_.find(experiment_id); known != policies_.end()) return known->second;
  ASSAY_ASSIGN(const ExperimentRow row, runs_.get_experiment(experiment_id));
  return policies_[experiment_id] = RunPolicy{row.retry, row.on_failure};
}

// --- events ----------------------------------------------------------------------------------------------------------

// The state machine's answer, as rows and as the subject's next life; nothing else happens.
Result<Transition> RunTransitions::apply_to(Subject& subject, RunEvent event, ChangeList& group) {
  event.at = clock_.unix_ms();
  // Asked for only where it counts: a damaged policy must not keep runs of other experiments from starting.
  const auto policy = uses_policy(event.kind) ? policy_of(subject.experiment_id) : Result<RunPolicy>(RunPolicy{});
  if (!policy.ok()) return commit_.fail(policy.error());
  ASSAY_ASSIGN(Transition t, apply(subject.life, event, *policy));
  for (Change& change : rows_of(subject, t)) group.push_back(std::move(change));
  subject.life = t.next;
  return t;
}

Status RunTransitions::advance(Subject& subject, const RunEvent& event, ChangeList& group) {
  const Subject before = subject;
  ASSAY_ASSIGN(const Transition t, apply_to(subject, event, group));
  keep(subject, before.attempt_id);
  return perform(before, subject, t.actions, group);
}

// `subject` may be an element of live_: it is copied before that changes.
void RunTransitions::advance_live(const Subject& subject, const RunEvent& event) {
  Subject copy = subject;
  ChangeList group;
  if (Status advanced = advance(copy, event, group); !advanced.ok())
    return log::error("attempt {}: {}", subject.attempt_id, advanced.error().message);
  commit_.stage(std::move(group));
}

Result<ChangeList> RunTransitions::lease(Subject& subject) {
  ChangeList group;
  RunEvent event{.kind = RunEventKind::backoff_elapsed, .cause = fmt::format("worker {}", subject.worker_id)};
  if (subject.life.state == RunState::retry_wait) ASSAY_TRY(apply_to(subject, event, group));
  event.kind = RunEventKind::lease_granted;
  ASSAY_TRY(apply_to(subject, event, group));
  return group;
}

Status RunTransitions::leased(Subject& subject, const AttemptRow& stored, int64_t timeout_s) {
  LiveAttempt& attempt = *subject.life.attempt;
  if (stored.n != attempt.n)
    return Error{ErrorCode::data_loss,
                 fmt::format("run {} got attempt {} where {} was due", subject.name, stored.n, attempt.n)};
  subject.attempt_id = stored.id;
  attempt.lease_epoch = stored.lease_epoch;
  live_[stored.id] = subject;
  leases_.watch(stored.id, attempt.phase, timeout_s, std::nullopt);
  return {};
}

void RunTransitions::keep(const Subject& subject, int64_t attempt_id) {
  if (subject.life.attempt) {
    live_[attempt_id] = subject;
  } else {
    live_.erase(attempt_id);
    changed_[subject.run_id] = subject.life;
  }
}

Status RunTransitions::perform(const Subject& before, Subject& after, const std::vector<Action>& actions,
                               ChangeList& group) {
  const LeaseKey lease = before.lease();
  for (const Action action : actions) {
    switch (action) {
      case Action::send_lease:
        break;  // after the commit, which numbers it: Assigner::start
      case Action::send_stop:
        leases_.stopping(lease.attempt_id);
        commit_.send(fleet_.link_of(before.worker_id), StopMessage{lease, after.life.attempt->stop});
        break;
      case Action::acknowledge_end:
        commit_.send(fleet_.link_of(before.worker_id), EventAckMessage{lease, AttemptNews::ended});
        break;
      case Action::free_devices:
        leases_.forget(lease.attempt_id);
        after.attempt_id = 0;
        after.device_ids.clear();
        break;
      case Action::cancel_cell:
        ASSAY_TRY(cancel_others(after, true, group));
        break;
      case Action::cancel_experiment:
        ASSAY_TRY(cancel_others(after, false, group));
        break;
    }
  }
  return {};
}

Status RunTransitions::cancel_others(const Subject& failed, bool only_cell, ChangeList& group) {
  RunFilter filter;
  filter.experiment_id = failed.experiment_id;
  if (only_cell) filter.cell_key = failed.cell_key;
  filter.states = live_states();
  const auto others = runs_.list_runs(filter);
  if (!others.ok()) return commit_.fail(others.error());
  for (const ListedRun& other : *others) {
    Subject subject = subject_of(other);
    if (subject.run_id == failed.run_id || is_terminal(subject.life.state) || subject.life.cancel_requested) continue;
    RunEvent event{.kind = RunEventKind::cancel_requested};
    event.cause = fmt::format("{} failed and on_failure is \"{}\"", failed.name, only_cell ? "stop_cell" : "stop_all");
    ASSAY_TRY(advance(subject, event, group));
  }
  return {};
}

// --- around the commit -----------------------------------------------------------------------------------------------

// Its lease gets its full time again, because its worker may need that long to find the new daemon.
void RunTransitions::take_over(const AttemptContext& context) {
  const AttemptRow& attempt = context.attempt;
  Subject subject = assay::subject_of(context.run);
  subject.attempt_id = attempt.id;
  subject.worker_id = attempt.worker_id;
  subject.device_ids = context.device_ids;
  subject.life.attempt = live_attempt_of(attempt, context.run.cancel_requested);
  std::optional<int64_t> running_ms;
  if (attempt.started_at != 0) running_ms = std::max<int64_t>(0, clock_.unix_ms() - attempt.started_at);
  leases_.watch(attempt.id, attempt.phase, timeout_of(context.run), running_ms);
  if (subject.life.attempt->stop != StopReason::none) leases_.stopping(attempt.id);
  if (attempt.state == AttemptState::unreachable) leases_.expire(attempt.id);
  live_[attempt.id] = std::move(subject);
}

void RunTransitions::clear() {
  live_.clear();
  leases_.clear();
  changed_.clear();
  policies_.clear();
}

}  // namespace assay
