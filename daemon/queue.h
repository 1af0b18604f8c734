// The queue itself: applies what people and workers say to the state machine, assigns devices, keeps leases. The parts
// are classes of their own (change_requests, worker_intake, run_transitions, assigner, fleet, lease_manager,
// group_commit); here they come together, and here is the order of a commit.
//
// Passive and single-threaded: daemon/queue_loop.h drives it in the daemon, tests drive it by hand. Every input stages
// its changes; commit() stores those of all inputs since the last one in one transaction, then sends what follows from
// them. So no lease, stop or receipt is ever sent for a change that is not on disk, and a burst costs one fsync. Steps
// are acknowledged when they are stored and would survive a kill; before the end of an attempt is stored or
// acknowledged, they are synced and survive a power cut (db/metric_store.h). One sync serves all ends of a commit.
// If a commit fails, everything staged is dropped, workers are disconnected and the state is read from the store again:
// they come back and say again what was not acknowledged.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "daemon/assigner.h"
#include "daemon/change_requests.h"
#include "daemon/fleet.h"
#include "daemon/group_commit.h"
#include "daemon/lease_manager.h"
#include "daemon/run_transitions.h"
#include "daemon/worker_intake.h"
#include "daemon/worker_link.h"
#include "db/metric_store.h"
#include "db/run_store.h"

namespace assay {

class Queue {
 public:
  // All references must outlive the queue. Ties the two stores together (db/store_pair.h) and takes over the attempts
  // that are live in the store.
  static Result<std::unique_ptr<Queue>> open(RunStore& runs, MetricStore& metrics, const Clock& clock,
                                             std::string home);

  // --- people ------------------------------------------------------------------------------------------------------

  // The answer is valid once commit() has succeeded. A request_id seen before gives the first answer. An empty tag is
  // the time now, as one that this experiment has not had.
  Result<EnqueueResult> enqueue(const ExperimentSpec& spec, std::string tag, const std::string& request_id) {
    return requests_.enqueue(spec, std::move(tag), request_id);
  }
  Result<ChangeAnswer> change(const ChangeRequest& request) { return requests_.change(request); }
  // No more leases; connected workers are told to end when their last attempt has ended, and live attempts to stop as
  // at the end of a worker: a checkpoint if there is time, then their runs go back to the queue, no retry used up.
  void stop_workers(const std::string& cause) { intake_.stop_all(cause); }
  bool stopped() const { return intake_.all_stopped(); }  // no connected worker has a live attempt

  // --- workers -----------------------------------------------------------------------------------------------------

  // A worker's greeting replaces an older link of the same worker. It also proves which attempts are gone: those the
  // store gives to this worker, or to another boot of its host, and that it does not name.
  void greet(const std::shared_ptr<WorkerLink>& link, const Hello& hello) { intake_.greet(link, hello); }
  // From here on `link` must be the worker's present one, else the call does nothing.
  void heartbeat(const WorkerLink* link, const Heartbeat& heartbeat) { intake_.heartbeat(link, heartbeat); }
  void steps(const WorkerLink* link, const MetricBatch& batch) { intake_.steps(link, batch); }
  void report(const WorkerLink* link, const AttemptEvent& report) { intake_.report(link, report); }
  void disconnected(const WorkerLink* link) { intake_.disconnected(link); }

  // --- time and commit ---------------------------------------------------------------------------------------------
  void tick();  // lease expiry, stalls, timeouts, retries that are due; stages like any input
  Status commit();
  // How long until tick() has something to do; nothing: not before the next input.
  std::optional<int64_t> ms_to_next_tick();

  bool held() const { return assigner_.held(); }
  int connected_workers() const { return static_cast<int>(fleet_.links().size()); }
  // Called after every commit that wrote events.
  void on_events(std::function<void()> callback) { commit_.on_events(std::move(callback)); }

 private:
  Queue(RunStore& runs, MetricStore& metrics, const Clock& clock, std::string home);

  Status load();
  Status reload(const Error& why);
  Status commit_once();
  Status start_leases(std::vector<Assigner::Lease> leases, const std::vector<Result<Applied>>& applied);

  RunStore& runs_;
  const Clock& clock_;
  GroupCommit commit_;
  Fleet fleet_;
  LeaseManager leases_;
  RunTransitions transitions_;
  Assigner assigner_;
  ChangeRequests requests_;
  WorkerIntake intake_;
};

}  // namespace assay
