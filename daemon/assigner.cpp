#include "daemon/assigner.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "daemon/scheduler.h"

namespace assay {
namespace {

// Claims read from the store at a time. Runs for devices that are all busy may stand before one that could start, so
// more are read while devices are left over; 64 keeps the usual pass at some 0.1 ms.
constexpr int64_t first_claims = 64;
constexpr int64_t claims_growth = 8;

}  // namespace

// Does the change let a waiting run start? Devices of an attempt that ends are free at once, for in memory it is gone;
// new claims and devices are read from the store.
void Assigner::note(const Change& change) {
  if (const auto* run = std::get_if<RunChange>(&change)) {
    due_ |= run->to && run->to != RunState::running;
    due_when_stored_ |= run->to == RunState::queued;
  }
  due_when_stored_ |= std::holds_alternative<WorkerHello>(change) || std::holds_alternative<DeviceChange>(change) ||
                      std::holds_alternative<SettingChange>(change);
}

std::vector<Assigner::Lease> Assigner::assign() {
  for (const ChangeList& group : commit_.staged())
    for (const Change& change : group) note(change);
  if (!std::exchange(due_, false) || held_) return {};
  const auto listed = runs_.list_devices();
  if (!listed.ok()) {
    log::error("cannot assign devices: {}", listed.error().message);
    return {};
  }
  const std::vector<WorkerSlots> slots = fleet_.slots(*listed, transitions_.busy_devices());
  if (!any_free(slots)) return {};
  const auto assignments = schedule_claims(slots);
  if (!assignments.ok()) {
    log::error("cannot assign devices: {}", assignments.error().message);
    return {};
  }
  std::vector<Lease> leases;
  for (const Assignment& assignment : *assignments) {
    auto granted = lease(assignment);
    if (granted.ok())
      leases.push_back(*std::move(granted));
    else
      log::error("run {} cannot be leased: {}", assignment.run_id, granted.error().message);
  }
  return leases;
}

Result<std::vector<Assignment>> Assigner::schedule_claims(const std::vector<WorkerSlots>& slots) {
  for (int64_t limit = first_claims;; limit *= claims_growth) {
    ASSAY_ASSIGN(const auto claims, runs_.claim_candidates(clock_.unix_ms(), limit));
    std::vector<WaitingRun> waiting;
    for (const ClaimCandidate& claim : claims)
      if (!transitions_.changed(claim.run_id))  // cancelled or held in this very commit
        waiting.push_back({claim.run_id, claim.devices, claim.backend});
    Schedule plan = schedule(waiting, slots, held_);
    if (plan.devices_left && std::ssize(claims) == limit) continue;
    return std::move(plan.assignments);
  }
}

Result<Assigner::Lease> Assigner::lease(const Assignment& assignment) {
  Lease lease;
  ASSAY_ASSIGN(lease.run, runs_.get_run_by_id(assignment.run_id));
  lease.subject = transitions_.subject_of(lease.run);
  lease.subject.worker_id = assignment.worker_id;
  lease.subject.device_ids = assignment.device_ids;
  ASSAY_ASSIGN(lease.group, transitions_.lease(lease.subject));
  return lease;
}

Status Assigner::start(Lease& lease, const AttemptRow& attempt) {
  const ListedRun& run = lease.run;
  LeaseMessage order;
  order.timeout_s = timeout_of(run.run);
  ASSAY_TRY(transitions_.leased(lease.subject, attempt, order.timeout_s));
  order.lease = lease.subject.lease();
  order.attempt = attempt.n;
  order.run = run.run.name;
  order.config_toml = run.run.config_toml;
  order.run_folder = fmt::format("{}/runs/{}/{}/{}", home_, run.experiment, run.tag, run.run.name);
  order.folder = fmt::format("{}/attempt{}", order.run_folder, attempt.n);
  order.device_ids = lease.subject.device_ids;
  order.attempt_key = runs_.attempt_key(attempt);
  if (attempt.n > 1) {
    ASSAY_ASSIGN(order.earlier_keys, runs_.earlier_keys(attempt));
  }
  commit_.send(fleet_.link_of(attempt.worker_id), std::move(order));
  return {};
}

}  // namespace assay
