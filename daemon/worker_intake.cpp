#include "daemon/worker_intake.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "base/version.h"

namespace assay {

void WorkerIntake::send(const std::string& worker_id, DaemonMessage message) {
  commit_.send(fleet_.link_of(worker_id), std::move(message));
}

// --- connection -----------------------------------------------------------------------------------------------------

// A lease of another queue, in which its ids were another attempt's: the database was deleted, or replaced by an older
// copy, while the worker went on.
bool WorkerIntake::is_foreign(const HeldLease& held) {
  if (held.attempt_key.empty()) return false;
  const auto known = runs_.get_attempt(held.lease.attempt_id);
  return known.ok() && runs_.attempt_key(known->attempt) != held.attempt_key;
}

void WorkerIntake::greet(const std::shared_ptr<WorkerLink>& link, const Hello& hello) {
  std::vector<HeldLease> own;
  std::vector<DaemonMessage> then;
  for (const HeldLease& held : hello.leases)
    if (is_foreign(held))
      then.emplace_back(AbandonMessage{held.lease});
    else
      own.push_back(held);
  commit_.stage({fleet_.greet(link, hello)});
  lose_missing(hello, own);
  WelcomeMessage welcome{.heartbeat_ms = limits::heartbeat_ms, .version = version()};
  for (const HeldLease& told_of : own) {
    const LeaseKey& lease = told_of.lease;
    const Subject* held = transitions_.live(lease, hello.worker_id);
    if (!held) {
      then.emplace_back(AbandonMessage{lease});
      continue;
    }
    const auto stored = metrics_.acked_seq(lease.attempt_id);
    if (!stored.ok()) return link->close(stored.error().message);
    welcome.stored.push_back({lease, *stored});
    leases_.heard(lease.attempt_id);
    if (held->life.attempt->state == AttemptState::unreachable) {
      transitions_.advance_live(*held, event_about(lease, RunEventKind::worker_back));
    } else if (held->life.attempt->stop != StopReason::none) {
      then.emplace_back(StopMessage{lease, held->life.attempt->stop});
    }
  }
  commit_.send_first(link, std::move(welcome));  // whatever was staged for this worker above
  for (DaemonMessage& message : then) commit_.send(link, std::move(message));
  if (fleet_.draining()) commit_.send(link, DrainMessage{});
  log::info("worker {} connected: {} devices, {} leases", hello.worker_id, hello.devices.size(), own.size());
}

// A worker that does not name a lease does not have it, and a host that was started anew has no process of its last
// boot.
void WorkerIntake::lose_missing(const Hello& hello, const std::vector<HeldLease>& own) {
  for (const Subject& subject : transitions_.all_live()) {
    const bool of_worker = subject.worker_id == hello.worker_id;
    const bool named =
        std::any_of(own.begin(), own.end(), [&](const HeldLease& held) { return held.lease == subject.lease(); });
    if (of_worker ? named : !fleet_.is_of_earlier_boot(subject.worker_id, hello)) continue;
    const std::string cause = of_worker ? fmt::format("worker {} came back without it", hello.worker_id)
                                        : fmt::format("host {} was started anew", hello.host);
    transitions_.advance_live(subject, event_about(subject.lease(), RunEventKind::worker_lost, cause));
  }
}

void WorkerIntake::disconnected(const WorkerLink* link) {
  const std::string worker_id = fleet_.worker_of(link);
  if (worker_id.empty()) return;
  commit_.stage({fleet_.disconnect(worker_id)});
  log::info("worker {} disconnected", worker_id);
}

// --- what a worker tells of its attempts ---------------------------------------------------------------------------

void WorkerIntake::heartbeat(const WorkerLink* link, const Heartbeat& heartbeat) {
  const std::string worker_id = fleet_.worker_of(link);
  if (worker_id.empty()) return;
  fleet_.heartbeat(worker_id);
  commit_.stage(fleet_.occupied(worker_id, heartbeat.occupied));
  for (const LeaseStatus& status : heartbeat.leases) {
    if (!transitions_.live(status.lease, worker_id)) {
      send(worker_id, AbandonMessage{status.lease});
      continue;
    }
    leases_.progress(status.lease.attempt_id, status.phase, status.last_step);
    progress(status.lease, status.phase);
  }
}

// Of a live attempt.
void WorkerIntake::progress(const LeaseKey& lease, Phase phase) {
  const Subject* held = transitions_.live(lease.attempt_id);
  if (held->life.attempt->state == AttemptState::unreachable) {
    // Its session had never ended: only the heartbeats were late.
    transitions_.advance_live(*held, event_about(lease, RunEventKind::worker_back, "heard of again"));
    held = transitions_.live(lease.attempt_id);
  }
  const LiveAttempt& now = *held->life.attempt;
  const bool runs = now.state == AttemptState::running || now.state == AttemptState::stopping;
  if (now.phase == phase && (runs || phase == Phase::load)) return;
  RunEvent event = event_about(lease, RunEventKind::progress);
  event.phase = phase;
  transitions_.advance_live(*held, event);
}

void WorkerIntake::steps(const WorkerLink* link, const MetricBatch& batch) {
  const std::string worker_id = fleet_.worker_of(link);
  if (worker_id.empty()) return;
  const Subject* held = transitions_.live(batch.lease, worker_id);
  if (!held) return send(worker_id, AbandonMessage{batch.lease});
  const auto stored = metrics_.append(batch.lease.attempt_id, batch.first_seq, batch.steps);
  if (!stored.ok() &&
      (stored.error().code == ErrorCode::already_exists || stored.error().code == ErrorCode::invalid_argument))
    return refuse_steps(*held, stored.error());
  // Not acknowledged is not lost: the worker sends it again after its next greeting.
  if (!stored.ok()) {
    log::error("metrics of attempt {} were not stored: {}", batch.lease.attempt_id, stored.error().message);
    return fleet_.link_of(worker_id)->close(stored.error().message);
  }
  if (!batch.steps.empty()) {
    leases_.progress(batch.lease.attempt_id, Phase::step, batch.steps.back().step);
    progress(batch.lease, Phase::step);
  }
  send(worker_id, MetricAckMessage{{batch.lease, stored->acked_seq}});
}

// Sent again they would be refused again, for ever: the attempt ends here, and its worker is told to let it go.
void WorkerIntake::refuse_steps(const Subject& held, const Error& why) {
  const LeaseKey lease = held.lease();
  const std::string worker_id = held.worker_id;
  log::error("steps of attempt {} are refused: {}", lease.attempt_id, why.message);
  RunEvent event = event_about(lease, RunEventKind::attempt_ended);
  event.outcome.result = AttemptResult::failed;
  event.outcome.reason = FailureReason::internal;
  event.outcome.error = "its steps cannot be stored: " + why.message;
  transitions_.advance_live(held, event);
  send(worker_id, AbandonMessage{lease});
}

void WorkerIntake::report(const WorkerLink* link, const AttemptEvent& report) {
  const std::string worker_id = fleet_.worker_of(link);
  if (worker_id.empty()) return;
  const Subject* held = transitions_.live(report.lease, worker_id);
  if (!held) return answer_unknown(worker_id, report);
  leases_.heard(report.lease.attempt_id);
  switch (report.kind) {
    case AttemptNews::ended:
      return ended(*held, report);  // acknowledged by the transition
    case AttemptNews::refused:
      return refused(*held, report);  // likewise
    case AttemptNews::started:
    case AttemptNews::resumed:
      started(*held, report);
      break;
    default:
      break;
  }
  send(worker_id, EventAckMessage{report.lease, report.kind});
}

// The worker tells it again after every greeting; only news are stored.
void WorkerIntake::started(const Subject& held, const AttemptEvent& report) {
  fleet_.started_one(held.worker_id);
  leases_.started(report.lease.attempt_id);
  const bool news = !held.life.attempt->started;
  if (!news && report.resumed_from_step < 0) return;
  RunEvent event = event_about(report.lease, news ? RunEventKind::attempt_started : RunEventKind::attempt_resumed);
  event.log_path = report.log_path;
  event.resumed_from_step = report.resumed_from_step;
  transitions_.advance_live(held, event);
}

void WorkerIntake::ended(const Subject& held, const AttemptEvent& report) {
  RunEvent event = event_about(report.lease, RunEventKind::attempt_ended);
  if (report.outcome) event.outcome = *report.outcome;
  transitions_.advance_live(held, event);
}

void WorkerIntake::refused(const Subject& held, const AttemptEvent& report) {
  // Of drained devices no lease comes again, so the others need not wait.
  if (!fleet_.any_occupied(held.worker_id, held.device_ids)) fleet_.refused(held.worker_id);
  RunEvent event = event_about(report.lease, RunEventKind::attempt_refused);
  if (report.outcome) event.outcome = *report.outcome;
  event.outcome.error = fmt::format("worker {} refused the lease: {}", held.worker_id, report.message);
  transitions_.advance_live(held, event);
}

// Told of an attempt that is not live: its end is stored already and the receipt was lost, or the lease is not its own.
void WorkerIntake::answer_unknown(const std::string& worker_id, const AttemptEvent& report) {
  const auto known = runs_.get_attempt(report.lease.attempt_id);
  const bool own =
      known.ok() && known->attempt.lease_epoch == report.lease.epoch && known->attempt.worker_id == worker_id;
  if (own && report.kind == AttemptNews::ended) return send(worker_id, EventAckMessage{report.lease, report.kind});
  send(worker_id, AbandonMessage{report.lease});
}

// --- silence, and the end of it all ----------------------------------------------------------------------------------

void WorkerIntake::alarm(const LeaseAlarm& alarm) {
  const Subject* subject = transitions_.live(alarm.attempt_id);
  if (!subject) return;
  RunEvent event = event_about(subject->lease(), RunEventKind::lease_expired, alarm.cause);
  if (alarm.kind != AlarmKind::expired) {
    event.kind = RunEventKind::stop_requested;
    event.stop = alarm.kind == AlarmKind::stalled ? StopReason::stalled : StopReason::timeout;
  } else if (fleet_.is_talking(subject->worker_id)) {
    // A worker that goes on talking but not of this lease does not have it: that is proof, not silence.
    event.kind = RunEventKind::worker_lost;
    event.cause = fmt::format("worker {} does not name it any longer", subject->worker_id);
    send(subject->worker_id, AbandonMessage{subject->lease()});
  }
  log::warn("{}: {}", subject->name, event.cause);
  transitions_.advance_live(*subject, event);
}

void WorkerIntake::stop_all(const std::string& cause) {
  fleet_.drain();
  for (const Subject& subject : transitions_.all_live()) {
    // One that is not connected goes on and comes back to the next daemon: nobody can tell it to stop.
    if (!fleet_.is_connected(subject.worker_id)) continue;
    const LiveAttempt& attempt = *subject.life.attempt;
    if (attempt.state == AttemptState::unreachable || attempt.stop != StopReason::none) continue;
    RunEvent event = event_about(subject.lease(), RunEventKind::stop_requested, cause);
    event.stop = StopReason::worker_stopped;
    transitions_.advance_live(subject, event);
  }
  for (const auto& link : fleet_.links()) commit_.send(link, DrainMessage{});
}

bool WorkerIntake::all_stopped() const {
  const auto live = transitions_.all_live();
  return std::none_of(live.begin(), live.end(),
                      [&](const Subject& subject) { return fleet_.is_connected(subject.worker_id); });
}

}  // namespace assay
