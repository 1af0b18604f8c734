// Queue: which run gets which devices, and the leases that follow.
#include <fmt/format.h>

#include <set>

#include "base/log.h"
#include "daemon/queue.h"
#include "daemon/transition_rows.h"

namespace assay {
namespace {

// Claims read from the store at a time. Runs for devices that are all busy may stand before one that could start, so
// more are read while devices are left over; 64 keeps the usual pass at some 0.1 ms.
constexpr int64_t first_claims = 64;
constexpr int64_t claims_growth = 8;

}  // namespace

// The devices of connected workers.
std::vector<WorkerSlots> Queue::slots_of(const std::vector<DeviceListing>& listed) const {
  std::set<std::string> busy;
  for (const auto& [id, subject] : live_) busy.insert(subject.device_ids.begin(), subject.device_ids.end());
  std::map<std::string, WorkerSlots> fleet;
  for (const DeviceListing& listing : listed) {
    const DeviceRow& device = listing.device;
    const auto owner = workers_.find(device.worker_id);
    if (owner == workers_.end() || !owner->second.link) continue;
    const Worker& worker = owner->second;
    const bool usable = worker.lease_again_at == 0 && !worker.occupied.contains(device.id);
    WorkerSlots& slots = fleet[device.worker_id];
    slots.worker_id = device.worker_id;
    slots.devices.push_back({device.id, device.kind, usable && !busy.contains(device.id), usable});
  }
  std::vector<WorkerSlots> slots;
  for (auto& [id, worker] : fleet) slots.push_back(std::move(worker));
  return slots;
}

void Queue::assign_devices() {
  if (!std::exchange(assign_, false) || held_ || stopping_) return;
  const auto listed = runs_.list_devices();
  if (!listed.ok()) return log::error("cannot assign devices: {}", listed.error().message);
  const std::vector<WorkerSlots> fleet = slots_of(*listed);
  if (!any_free(fleet)) return;

  for (int64_t limit = first_claims;; limit *= claims_growth) {
    const auto claims = runs_.claim_candidates(clock_.unix_ms(), limit);
    if (!claims.ok()) return log::error("cannot assign devices: {}", claims.error().message);
    std::vector<WaitingRun> waiting;
    std::map<int64_t, const ClaimCandidate*> by_id;
    for (const ClaimCandidate& claim : *claims) {
      if (staged_.contains(claim.run_id)) continue;  // cancelled or held in this very commit
      waiting.push_back({claim.run_id, claim.devices, claim.backend});
      by_id[claim.run_id] = &claim;
    }
    const Schedule plan = schedule(waiting, fleet, held_);
    if (plan.devices_left && static_cast<int64_t>(claims->size()) == limit) continue;
    for (const Assignment& assignment : plan.assignments) grant(*by_id[assignment.run_id], assignment);
    break;
  }
}

void Queue::grant(const ClaimCandidate& claim, const Assignment& assignment) {
  // The store numbers attempts and epochs, so the state machine is asked only for the way of the run.
  RunLife life{.state = claim.state};
  ChangeList list;
  for (const RunEventKind kind : {RunEventKind::backoff_elapsed, RunEventKind::lease_granted}) {
    if (kind == RunEventKind::backoff_elapsed && claim.state != RunState::retry_wait) continue;
    const RunEvent event{.kind = kind, .at = clock_.unix_ms(), .cause = fmt::format("worker {}", assignment.worker_id)};
    const auto t = apply(life, event, {});
    if (!t.ok()) return log::error("run {} cannot be leased: {}", claim.run_id, t.error().message);
    const ChangeList rows = rows_of(claim.run_id, 0, life, *t);
    list.insert(list.end(), rows.begin(), rows.end());
    life = t->next;
  }
  list.push_back(NewAttempt{.run_id = claim.run_id,
                            .worker_id = assignment.worker_id,
                            .device_ids = assignment.device_ids,
                            .cause = fmt::format("worker {}", assignment.worker_id)});
  grants_.push_back(groups_.size());
  stage(std::move(list));
  events_staged_ = true;
}

Status Queue::start_leases(const std::vector<Result<Applied>>& applied) {
  for (const size_t group : grants_) {
    if (!applied[group].ok()) {
      // Nothing of it is stored and nothing is remembered; the next change of runs or devices tries again.
      log::error("a lease was not granted: {}", applied[group].error().message);
      continue;
    }
    ASSAY_ASSIGN(const AttemptContext context, runs_.get_attempt(applied[group]->attempts.front().id));
    take_over(context);
    const AttemptRow& attempt = context.attempt;
    LeaseMessage order;
    order.lease = {attempt.id, attempt.lease_epoch};
    order.attempt = attempt.n;
    order.run = context.run.name;
    order.config_toml = context.run.config_toml;
    order.run_folder = fmt::format("{}/runs/{}/{}/{}", home_, context.experiment, context.tag, context.run.name);
    order.folder = fmt::format("{}/attempt{}", order.run_folder, attempt.n);
    order.device_ids = context.device_ids;
    order.timeout_s = timeout_of(context.run);
    order.attempt_key = runs_.attempt_key(attempt);
    if (attempt.n > 1) {
      ASSAY_ASSIGN(order.earlier_keys, runs_.earlier_keys(attempt));
    }
    send(attempt.worker_id, std::move(order));
  }
  return {};
}

}  // namespace assay
