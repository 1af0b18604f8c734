// What workers say, and what their silence says, as events on their attempts; and what they are answered.
//
// Every input stages its changes and messages and returns; nothing is sent before the commit. A link that is not its
// worker's present one is not heard. Has no state of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "daemon/fleet.h"
#include "daemon/group_commit.h"
#include "daemon/lease_manager.h"
#include "daemon/run_transitions.h"
#include "daemon/worker_link.h"
#include "db/metric_store.h"
#include "db/run_store.h"

namespace assay {

class WorkerIntake {
 public:
  // All references must outlive it.
  WorkerIntake(RunStore& runs, MetricStore& metrics, Fleet& fleet, LeaseManager& leases, RunTransitions& transitions,
               GroupCommit& commit)
      : runs_(runs), metrics_(metrics), fleet_(fleet), leases_(leases), transitions_(transitions), commit_(commit) {}

  // As in Queue.
  void greet(const std::shared_ptr<WorkerLink>& link, const Hello& hello);
  void heartbeat(const WorkerLink* link, const Heartbeat& heartbeat);
  void steps(const WorkerLink* link, const MetricBatch& batch);
  void report(const WorkerLink* link, const AttemptEvent& report);
  void disconnected(const WorkerLink* link);
  void stop_all(const std::string& cause);
  bool all_stopped() const;

  void alarm(const LeaseAlarm& alarm);

 private:
  bool is_foreign(const HeldLease& held);
  void lose_missing(const Hello& hello, const std::vector<HeldLease>& own);
  void progress(const LeaseKey& lease, Phase phase);
  void started(const Subject& held, const AttemptEvent& report);
  void ended(const Subject& held, const AttemptEvent& report);
  void refused(const Subject& held, const AttemptEvent& report);
  void refuse_steps(const Subject& held, const Error& why);
  void answer_unknown(const std::string& worker_id, const AttemptEvent& report);
  void send(const std::string& worker_id, DaemonMessage message);

  RunStore& runs_;
  MetricStore& metrics_;
  Fleet& fleet_;
  LeaseManager& leases_;
  RunTransitions& transitions_;
  GroupCommit& commit_;
};

}  // namespace assay
