#include "daemon/lease_manager.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"

namespace assay {

int64_t progress_deadline_ms(Phase phase) {
  switch (phase) {
    case Phase::load:
      return limits::load_deadline_ms;
    case Phase::step:
      return limits::step_deadline_ms;
    case Phase::checkpoint:
      return limits::checkpoint_deadline_ms;
  }
  return limits::step_deadline_ms;
}

void LeaseManager::watch(int64_t attempt_id, Phase phase, int64_t timeout_s, std::optional<int64_t> running_ms) {
  const int64_t now = clock_.monotonic_ms();
  Lease lease{.heard_at = now, .progress_at = now, .phase = phase, .timeout_ms = timeout_s * 1000};
  if (running_ms) lease.started_at = now - *running_ms;
  leases_[attempt_id] = lease;
}

void LeaseManager::started(int64_t attempt_id) {
  const auto it = leases_.find(attempt_id);
  if (it != leases_.end() && !it->second.started_at) it->second.started_at = clock_.monotonic_ms();
}

void LeaseManager::stopping(int64_t attempt_id) {
  if (const auto it = leases_.find(attempt_id); it != leases_.end()) it->second.stopping = true;
}

void LeaseManager::expire(int64_t attempt_id) {
  if (const auto it = leases_.find(attempt_id); it != leases_.end()) it->second.expired = true;
}

bool LeaseManager::heard(int64_t attempt_id) {
  const auto it = leases_.find(attempt_id);
  if (it == leases_.end()) return false;
  Lease& lease = it->second;
  lease.heard_at = clock_.monotonic_ms();
  if (!lease.expired) return true;
  lease.expired = false;
  lease.progress_at = lease.heard_at;  // what it did while nobody heard it is not known: its time starts again
  return false;
}

void LeaseManager::progress(int64_t attempt_id, Phase phase, int64_t last_step) {
  heard(attempt_id);
  const auto it = leases_.find(attempt_id);
  if (it == leases_.end()) return;
  Lease& lease = it->second;
  if (lease.phase == phase && lease.last_step == last_step) return;
  lease.phase = phase;
  lease.last_step = last_step;
  lease.progress_at = lease.heard_at;
}

std::optional<LeaseManager::Deadline> LeaseManager::next_of(const Lease& lease) {
  if (lease.expired) return std::nullopt;  // nothing can be done about an attempt that nobody hears
  Deadline next{lease.heard_at + limits::lease_ms, AlarmKind::expired};
  if (lease.stopping) return next;
  const int64_t stalled = lease.progress_at + progress_deadline_ms(lease.phase);
  if (stalled < next.at) next = {stalled, AlarmKind::stalled};
  if (lease.timeout_ms > 0 && lease.started_at && *lease.started_at + lease.timeout_ms < next.at)
    next = {*lease.started_at + lease.timeout_ms, AlarmKind::timeout};
  return next;
}

std::vector<LeaseAlarm> LeaseManager::tick() {
  const int64_t now = clock_.monotonic_ms();
  std::vector<LeaseAlarm> alarms;
  for (auto& [id, lease] : leases_) {
    const auto next = next_of(lease);
    if (!next || next->at > now) continue;
    switch (next->kind) {
      case AlarmKind::expired:
        lease.expired = true;
        alarms.push_back({id, next->kind, fmt::format("nothing heard for {} s", (now - lease.heard_at) / 1000)});
        break;
      case AlarmKind::stalled:
        lease.stopping = true;
        alarms.push_back({id, next->kind,
                          fmt::format("no progress for {} s in phase {}", (now - lease.progress_at) / 1000,
                                      to_string(lease.phase))});
        break;
      case AlarmKind::timeout:
        lease.stopping = true;
        alarms.push_back({id, next->kind, fmt::format("ran longer than its timeout of {} s", lease.timeout_ms / 1000)});
        break;
    }
  }
  return alarms;
}

std::optional<int64_t> LeaseManager::next_deadline() const {
  std::optional<int64_t> earliest;
  for (const auto& [id, lease] : leases_) {
    const auto next = next_of(lease);
    if (next && (!earliest || next->at < *earliest)) earliest = next->at;
  }
  return earliest;
}

}  // namespace assay
