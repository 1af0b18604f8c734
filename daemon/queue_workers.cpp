// Queue: what workers say, and what is said to them.
#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "base/version.h"
#include "daemon/queue.h"
#include "daemon/transition_rows.h"

namespace assay {
namespace {

// Its trainer need not have run: the state machine judges by whether its start was told.
bool ended_with_worker(const AttemptOutcome& outcome) {
  return outcome.result == AttemptResult::stopped || outcome.reason == FailureReason::worker_lost;
}

WorkerRow row_of(const Hello& hello) {
  return {.id = hello.worker_id,
          .host = hello.host,
          .boot_id = hello.boot_id,
          .pid = hello.pid,
          .start_ticks = hello.start_ticks,
          .state = WorkerState::connected};
}

std::vector<DeviceRow> devices_of(const Hello& hello) {
  std::vector<DeviceRow> rows;
  for (const DeviceInfo& device : hello.devices) {
    const auto user = hello.occupied.find(device.id);
    rows.push_back({.id = device.id,
                    .worker_id = hello.worker_id,
                    .kind = device.kind,
                    .name = device.name,
                    .memory_bytes = device.memory_bytes,
                    .drained_by = user == hello.occupied.end() ? "" : user->second});
  }
  return rows;
}

}  // namespace

int Queue::connected_workers() const {
  return static_cast<int>(
      std::count_if(workers_.begin(), workers_.end(), [](const auto& w) { return w.second.link != nullptr; }));
}

Queue::Worker* Queue::worker_of(const WorkerLink* link) {
  for (auto& [id, worker] : workers_)
    if (worker.link.get() == link) return &worker;
  return nullptr;
}

// The live attempt that the lease names, if this worker holds it under that epoch.
Queue::Subject* Queue::live(const LeaseKey& lease, const Worker& worker) {
  const auto it = live_.find(lease.attempt_id);
  if (it == live_.end() || it->second.worker_id != worker.row.id) return nullptr;
  return it->second.life.attempt->lease_epoch == lease.epoch ? &it->second : nullptr;
}

// An event on a live run as a group of its own. `subject` may be an element of live_: it is copied before that changes.
Status Queue::advance_live(const Subject& subject, const RunEvent& event, const AttemptFacts& facts) {
  Subject copy = subject;
  ChangeList list;
  Status advanced = advance(copy, event, list, facts);
  if (advanced.ok()) stage(std::move(list));
  return advanced;
}

// --- connection -----------------------------------------------------------------------------------------------------

// A lease of another queue, in which its ids were another attempt's: the database was deleted, or replaced by an older
// copy, while the worker went on.
bool Queue::is_foreign(const HeldLease& held) {
  if (held.attempt_key.empty()) return false;
  const auto known = runs_.get_attempt(held.lease.attempt_id);
  return known.ok() && runs_.attempt_key(known->attempt) != held.attempt_key;
}

void Queue::greet(std::shared_ptr<WorkerLink> link, const Hello& told) {
  Hello hello = told;
  std::vector<DaemonMessage> then;
  std::erase_if(hello.leases, [&](const HeldLease& held) {
    const bool foreign = is_foreign(held);
    if (foreign) then.emplace_back(AbandonMessage{held.lease});
    return foreign;
  });
  Worker& worker = workers_[hello.worker_id];
  if (worker.link && worker.link != link) worker.link->close("the worker has opened a newer session");
  worker.row = row_of(hello);
  worker.row.last_seen = clock_.unix_ms();
  worker.link = link;
  worker.heartbeat_at = clock_.monotonic_ms();
  worker.lease_again_at = 0;
  stage({WorkerHello{worker.row, devices_of(hello)}});
  worker.device_ids.clear();
  worker.occupied.clear();
  for (const DeviceInfo& device : hello.devices) {
    for (auto& [id, other] : workers_) {  // a device belongs to the worker that named it last
      other.device_ids.erase(device.id);
      other.occupied.erase(device.id);
    }
    worker.device_ids.insert(device.id);
    if (const auto user = hello.occupied.find(device.id); user != hello.occupied.end()) worker.occupied.insert(*user);
  }
  assign_again_ = true;

  lose_missing(hello);
  WelcomeMessage welcome{.heartbeat_ms = limits::heartbeat_ms, .version = version()};
  for (const HeldLease& told_of : hello.leases) {
    const LeaseKey& lease = told_of.lease;
    Subject* held = live(lease, worker);
    if (!held) {
      then.emplace_back(AbandonMessage{lease});
      continue;
    }
    const auto stored = metrics_.acked_seq(lease.attempt_id);
    if (!stored.ok()) return link->close(stored.error().message);
    welcome.stored.push_back({lease, *stored});
    leases_.heard(lease.attempt_id);
    if (held->life.attempt->state == AttemptState::unreachable) {
      static_cast<void>(
          advance_live(*held, event_about(lease, RunEventKind::worker_back)));  // legal: it is unreachable
    } else if (held->life.attempt->stop != StopReason::none) {
      then.emplace_back(StopMessage{lease, held->life.attempt->stop});
    }
  }
  // The welcome goes first, whatever was staged for this worker above.
  outbox_.insert(outbox_.begin(), {link, std::move(welcome)});
  for (DaemonMessage& order : then) outbox_.emplace_back(link, std::move(order));
  if (stopping_) outbox_.emplace_back(link, DrainMessage{});
  log::info("worker {} connected: {} devices, {} leases", worker.row.id, hello.devices.size(), hello.leases.size());
}

// A worker that does not name a lease does not have it, and a host that was started anew has no process of its last
// boot.
void Queue::lose_missing(const Hello& hello) {
  std::vector<Subject> gone;
  std::string cause;
  for (const auto& [id, subject] : live_) {
    const LeaseKey lease{id, subject.life.attempt->lease_epoch};
    const bool named = std::any_of(hello.leases.begin(), hello.leases.end(),
                                   [&](const HeldLease& held) { return held.lease == lease; });
    const auto owner = workers_.find(subject.worker_id);
    const bool other_boot = owner != workers_.end() && owner->first != hello.worker_id &&
                            owner->second.row.host == hello.host && !hello.boot_id.empty() &&
                            owner->second.row.boot_id != hello.boot_id;
    if (subject.worker_id == hello.worker_id ? !named : other_boot) gone.push_back(subject);
  }
  for (const Subject& subject : gone) {
    const LeaseKey lease{subject.attempt_id, subject.life.attempt->lease_epoch};
    const std::string cause = subject.worker_id == hello.worker_id
                                  ? fmt::format("worker {} came back without it", hello.worker_id)
                                  : fmt::format("host {} was started anew", hello.host);
    if (Status lost = advance_live(subject, event_about(lease, RunEventKind::worker_lost, cause)); !lost.ok())
      log::error("attempt {}: {}", subject.attempt_id, lost.error().message);
  }
}

void Queue::disconnected(const WorkerLink* link) {
  Worker* worker = worker_of(link);
  if (!worker) return;
  worker->link.reset();
  worker->row.state = WorkerState::disconnected;
  stage({WorkerChange{worker->row.id, WorkerState::disconnected, "its session ended"}});
  events_staged_ = true;
  log::info("worker {} disconnected", worker->row.id);
}

// --- what a worker tells of its attempts ---------------------------------------------------------------------------

void Queue::heartbeat(const WorkerLink* link, const Heartbeat& heartbeat) {
  Worker* worker = worker_of(link);
  if (!worker) return;
  worker->heartbeat_at = clock_.monotonic_ms();
  drain_occupied(*worker, heartbeat.occupied);
  for (const LeaseStatus& status : heartbeat.leases) {
    Subject* held = live(status.lease, *worker);
    if (!held) {
      send(worker->row.id, AbandonMessage{status.lease});
      continue;
    }
    leases_.progress(status.lease.attempt_id, status.phase, status.last_step);
    progress(*held, status.lease, status.phase);
  }
}

// Nobody is given a device on which others compute; an attempt that holds it goes on.
void Queue::drain_occupied(Worker& worker, OccupiedDevices occupied) {
  std::erase_if(occupied, [&](const auto& device) { return !worker.device_ids.contains(device.first); });
  if (occupied == worker.occupied) return;
  ChangeList changes;
  for (const auto& [id, user] : worker.occupied)
    if (!occupied.contains(id)) {
      log::info("device {}: nobody else uses it any longer", id);
      changes.push_back(DeviceChange{id, {}});
    }
  for (const auto& [id, user] : occupied) {
    if (!worker.occupied.contains(id)) log::warn("device {} is drained: used by {}", id, user);
    changes.push_back(DeviceChange{id, user});
  }
  worker.occupied = std::move(occupied);
  stage(std::move(changes));
  events_staged_ = true;
  assign_again_ = true;
}

void Queue::progress(const Subject& held, const LeaseKey& lease, Phase phase) {
  const LiveAttempt& attempt = *held.life.attempt;
  if (attempt.state == AttemptState::unreachable)  // its session had never ended: only the heartbeats were late
    static_cast<void>(advance_live(held, event_about(lease, RunEventKind::worker_back, "heard of again")));
  const LiveAttempt& now = *live_.at(lease.attempt_id).life.attempt;
  const bool runs = now.state == AttemptState::running || now.state == AttemptState::stopping;
  if (now.phase == phase && (runs || phase == Phase::load)) return;
  RunEvent event = event_about(lease, RunEventKind::progress);
  event.phase = phase;
  if (Status moved = advance_live(live_.at(lease.attempt_id), event); !moved.ok())
    log::warn("attempt {}: {}", lease.attempt_id, moved.error().message);
}

void Queue::steps(const WorkerLink* link, const MetricBatch& batch) {
  Worker* worker = worker_of(link);
  if (!worker) return;
  Subject* held = live(batch.lease, *worker);
  if (!held) return send(worker->row.id, AbandonMessage{batch.lease});
  const auto stored = metrics_.append(batch.lease.attempt_id, batch.first_seq, batch.steps);
  if (!stored.ok() &&
      (stored.error().code == ErrorCode::already_exists || stored.error().code == ErrorCode::invalid_argument))
    return refuse_steps(*held, batch.lease, stored.error());
  // Not acknowledged is not lost: the worker sends it again after its next greeting.
  if (!stored.ok()) {
    log::error("metrics of attempt {} were not stored: {}", batch.lease.attempt_id, stored.error().message);
    return worker->link->close(stored.error().message);
  }
  if (!batch.steps.empty()) {
    leases_.progress(batch.lease.attempt_id, Phase::step, batch.steps.back().step);
    progress(*held, batch.lease, Phase::step);
  }
  send(worker->row.id, MetricAckMessage{{batch.lease, stored->acked_seq}});
}

// Sent again they would be refused again, for ever: the attempt ends here, and its worker is told to let it go.
void Queue::refuse_steps(const Subject& held, const LeaseKey& lease, const Error& why) {
  log::error("steps of attempt {} are refused: {}", lease.attempt_id, why.message);
  const std::string worker_id = held.worker_id;
  RunEvent event = event_about(lease, RunEventKind::attempt_ended);
  event.outcome.result = AttemptResult::failed;
  event.outcome.reason = FailureReason::internal;
  event.outcome.error = "its steps cannot be stored: " + why.message;
  if (Status ended = advance_live(held, event); !ended.ok())
    log::error("attempt {}: {}", lease.attempt_id, ended.error().message);
  send(worker_id, AbandonMessage{lease});
}

void Queue::report(const WorkerLink* link, const AttemptEvent& report) {
  Worker* worker = worker_of(link);
  if (!worker) return;
  Subject* held = live(report.lease, *worker);
  if (!held) return answer_ended(*worker, report);
  leases_.heard(report.lease.attempt_id);
  AttemptFacts facts;
  RunEvent event = event_about(report.lease, RunEventKind::attempt_ended);
  if (report.kind == AttemptNews::ended || report.kind == AttemptNews::refused) {
    if (report.outcome) event.outcome = *report.outcome;
    if (report.kind == AttemptNews::refused) {
      event.kind = RunEventKind::attempt_refused;
      const auto& ids = held->device_ids;  // of drained devices no lease comes again, so the others need not wait
      if (std::none_of(ids.begin(), ids.end(), [&](const auto& id) { return worker->occupied.contains(id); }))
        pause_leases(*worker);
      event.outcome.error = fmt::format("worker {} refused the lease: {}", worker->row.id, report.message);
    } else if (!held->life.attempt->started && !ended_with_worker(event.outcome)) {
      facts.started_at = clock_.unix_ms();  // over so soon that its start was not told
    }
    if (Status ended = advance_live(*held, event, facts); !ended.ok())
      log::error("attempt {}: {}", report.lease.attempt_id, ended.error().message);
    return;  // acknowledged by the transition
  }
  if (report.kind == AttemptNews::started || report.kind == AttemptNews::resumed) note_started(*held, report);
  send(worker->row.id, EventAckMessage{report.lease, report.kind});
}

// The worker tells it again after every greeting; only news are stored.
void Queue::note_started(const Subject& held, const AttemptEvent& report) {
  workers_.at(held.worker_id).refused_pause_ms = 0;
  AttemptFacts facts;
  if (!report.log_path.empty()) facts.log_path = report.log_path;
  if (report.resumed_from_step >= 0) facts.resumed_from_step = report.resumed_from_step;
  leases_.started(report.lease.attempt_id);
  if (!held.life.attempt->started) {
    facts.started_at = clock_.unix_ms();
    if (Status begun = advance_live(held, event_about(report.lease, RunEventKind::attempt_started), facts); !begun.ok())
      log::warn("attempt {}: {}", report.lease.attempt_id, begun.error().message);
  } else if (facts.resumed_from_step) {
    AttemptChange change{.attempt_id = report.lease.attempt_id, .lease_epoch = report.lease.epoch};
    change.from = held.life.attempt->state;
    change.resumed_from_step = facts.resumed_from_step;
    stage({std::move(change)});
  }
}

// What a worker could not start it can start of no other run either, most likely.
void Queue::pause_leases(Worker& worker) {
  worker.refused_pause_ms =
      std::clamp(2 * worker.refused_pause_ms, limits::refused_pause_min_ms, limits::refused_pause_max_ms);
  worker.lease_again_at = clock_.monotonic_ms() + worker.refused_pause_ms;
}

// Told of an attempt that is not live: its end is stored already and the receipt was lost, or the lease is not its own.
void Queue::answer_ended(const Worker& worker, const AttemptEvent& report) {
  const auto known = runs_.get_attempt(report.lease.attempt_id);
  const bool own =
      known.ok() && known->attempt.lease_epoch == report.lease.epoch && known->attempt.worker_id == worker.row.id;
  if (own && report.kind == AttemptNews::ended) return send(worker.row.id, EventAckMessage{report.lease, report.kind});
  send(worker.row.id, AbandonMessage{report.lease});
}

}  // namespace assay
