// Queue: what time does to leases, retries and refusals, and the end of it all.
#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/queue.h"
#include "daemon/transition_rows.h"

namespace assay {

void Queue::tick() {
  for (const LeaseAlarm& alarm : leases_.tick()) raise(alarm);
  for (auto& [id, worker] : workers_)
    if (worker.lease_again_at != 0 && worker.lease_again_at <= clock_.monotonic_ms()) {
      worker.lease_again_at = 0;
      assign_ = true;
    }
  const auto due = runs_.next_retry_at();
  if (due.ok() && *due && **due <= clock_.unix_ms()) assign_ = true;
}

void Queue::raise(const LeaseAlarm& alarm) {
  const auto it = live_.find(alarm.attempt_id);
  if (it == live_.end()) return;
  const Subject& subject = it->second;
  const LeaseKey lease{alarm.attempt_id, subject.life.attempt->lease_epoch};
  RunEvent event = event_about(lease, RunEventKind::lease_expired, alarm.cause);
  if (alarm.kind == AlarmKind::expired) {
    // A worker that goes on talking but not of this lease does not have it: that is proof, not silence.
    const auto worker = workers_.find(subject.worker_id);
    if (worker != workers_.end() && worker->second.link &&
        clock_.monotonic_ms() - worker->second.heartbeat_at < limits::lease_ms) {
      event.kind = RunEventKind::worker_lost;
      event.cause = fmt::format("worker {} does not name it any longer", subject.worker_id);
      send(subject.worker_id, AbandonMessage{lease});
    }
  } else {
    event.kind = RunEventKind::stop_requested;
    event.stop = alarm.kind == AlarmKind::stalled ? StopReason::stalled : StopReason::timeout;
  }
  log::warn("{}: {}", subject.name, event.cause);
  if (Status advanced = advance_live(subject, event); !advanced.ok())
    log::error("attempt {}: {}", alarm.attempt_id, advanced.error().message);
}

std::optional<int64_t> Queue::ms_to_next_tick() {
  std::optional<int64_t> wait;
  if (const auto deadline = leases_.next_deadline()) wait = *deadline - clock_.monotonic_ms();
  if (const auto due = runs_.next_retry_at(); due.ok() && *due) {
    const int64_t until = **due - clock_.unix_ms();
    // A retry that is due but finds no device waits for one; it is not polled.
    if (until > 0) wait = std::min(wait.value_or(until), until);
  }
  for (const auto& [id, worker] : workers_)
    if (worker.lease_again_at != 0) {
      const int64_t until = worker.lease_again_at - clock_.monotonic_ms();
      wait = std::min(wait.value_or(until), until);
    }
  if (wait) wait = std::max<int64_t>(*wait, 0);
  return wait;
}

void Queue::stop_workers(const std::string& cause) {
  stopping_ = true;
  const auto attempts = live_;
  for (const auto& [id, subject] : attempts) {
    const auto worker = workers_.find(subject.worker_id);
    // One that is not connected goes on and comes back to the next daemon: nobody can tell it to stop.
    if (worker == workers_.end() || !worker->second.link) continue;
    if (subject.life.attempt->state == AttemptState::unreachable || subject.life.attempt->stop != StopReason::none)
      continue;
    RunEvent event = event_about({id, subject.life.attempt->lease_epoch}, RunEventKind::stop_requested, cause);
    event.stop = StopReason::worker_stopped;
    if (Status stopped = advance_live(subject, event); !stopped.ok())
      log::error("attempt {}: {}", id, stopped.error().message);
  }
  for (const auto& [id, worker] : workers_) send(id, DrainMessage{});
}

bool Queue::stopped() const {
  return std::none_of(live_.begin(), live_.end(), [&](const auto& entry) {
    const auto worker = workers_.find(entry.second.worker_id);
    return worker != workers_.end() && worker->second.link;
  });
}

}  // namespace assay
