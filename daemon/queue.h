// The queue itself: applies what people and workers say to the state machine, assigns devices, keeps leases.
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
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "daemon/lease_manager.h"
#include "daemon/run_state.h"
#include "daemon/scheduler.h"
#include "daemon/worker_link.h"
#include "db/metric_store.h"
#include "db/run_store.h"

namespace assay {

struct Selection {
  std::vector<std::string> names;  // as in RunFilter
  std::vector<int64_t> ids;
  std::string tag;
  std::vector<RunState> states;
  bool everything() const { return names.empty() && ids.empty() && tag.empty() && states.empty(); }
};
RunFilter filter_of(const Selection&);
struct ChangeAnswer {
  std::vector<std::string> changed;    // run names, full ones where runs of several experiments were meant
  std::vector<std::string> unchanged;  // "name: why"
};

class Queue {
 public:
  // All references must outlive the queue. Ties the two stores together (db/store_pair.h) and takes over the attempts
  // that are live in the store.
  static Result<std::unique_ptr<Queue>> open(RunStore& runs, MetricStore& metrics, const Clock& clock,
                                             std::string home);

  // --- people ------------------------------------------------------------------------------------------------------

  // The answer is valid once commit() has succeeded. A request_id seen before gives the first answer. An empty tag is
  // the time now, as one that this experiment has not had.
  Result<EnqueueResult> enqueue(const ExperimentSpec& spec, std::string tag, const std::string& request_id);
  Result<ChangeAnswer> cancel(const Selection&, bool all, const std::string& request_id);
  Result<ChangeAnswer> retry(const Selection&, bool failed, const std::string& request_id);
  Result<ChangeAnswer> hold(const Selection&, const std::string& request_id);  // no names, no tag: the whole queue
  Result<ChangeAnswer> release(const Selection&, const std::string& request_id);
  // No more leases; connected workers are told to end when their last attempt has ended, and live attempts to stop as
  // at the end of a worker: a checkpoint if there is time, then their runs go back to the queue, no retry used up.
  void stop_workers(const std::string& cause);
  bool stopped() const;  // no connected worker has a live attempt

  // --- workers -----------------------------------------------------------------------------------------------------

  // A worker's greeting replaces an older link of the same worker. It also proves which attempts are gone: those the
  // store gives to this worker, or to another boot of its host, and that it does not name.
  void greet(std::shared_ptr<WorkerLink> link, const Hello& hello);
  // From here on `link` must be the worker's present one, else the call does nothing.
  void heartbeat(const WorkerLink* link, const Heartbeat& heartbeat);
  void steps(const WorkerLink* link, const MetricBatch& batch);
  void report(const WorkerLink* link, const AttemptEvent& report);
  void disconnected(const WorkerLink* link);

  // --- time and commit ---------------------------------------------------------------------------------------------
  void tick();  // lease expiry, stalls, timeouts, retries that are due; stages like any input
  Status commit();
  // How long until tick() has something to do; nothing: not before the next input.
  std::optional<int64_t> ms_to_next_tick();

  bool held() const { return held_; }
  int connected_workers() const;
  // Called after every commit that wrote events.
  void on_events(std::function<void()> callback) { events_written_ = std::move(callback); }

 private:
  // A run together with its live attempt, if it has one.
  struct Subject {
    int64_t run_id = 0;
    int64_t experiment_id = 0;
    int64_t attempt_id = 0;
    std::string name;
    std::string cell_key;
    std::string worker_id;
    std::vector<std::string> device_ids;
    RunLife life;
  };
  struct Worker {
    WorkerRow row;
    std::set<std::string> device_ids;
    OccupiedDevices occupied;          // those of them that are drained
    std::shared_ptr<WorkerLink> link;  // null: not connected
    int64_t heartbeat_at = 0;          // monotonic ms
    int64_t refused_pause_ms = 0;      // how long it got no lease after its last refusal
    int64_t lease_again_at = 0;        // monotonic ms, 0 = now
  };
  // The attempt's own facts that travel with an event.
  struct AttemptFacts {
    std::optional<int64_t> started_at;
    std::optional<std::string> log_path;
    std::optional<int64_t> resumed_from_step;
  };
  using Eligible = std::vector<RunState>;

  Queue(RunStore& runs, MetricStore& metrics, const Clock& clock, std::string home)
      : runs_(runs), metrics_(metrics), clock_(clock), home_(std::move(home)), leases_(clock) {}

  Status load();
  Status reload(const Error& why);
  void take_over(const AttemptContext& context);
  void forget_staged();
  Status fail(const Error& error);

  // queue.cpp, queue_leases.cpp: the state machine and the store.
  Result<RunPolicy> policy_of(int64_t experiment_id);
  Status advance(Subject& subject, RunEvent event, ChangeList& list, const AttemptFacts& facts = {});
  Status perform(const Subject& before, Subject& after, const std::vector<Action>& actions, ChangeList& list);
  Status cancel_others(const Subject& failed, bool only_cell, ChangeList& list);
  Subject subject_of(const ListedRun& listed) const;
  void keep(const Subject& subject, int64_t attempt_id);
  Status commit_once();
  void note_mark();
  void stage(ChangeList list);
  std::vector<WorkerSlots> slots_of(const std::vector<DeviceListing>& listed) const;
  void assign_devices();
  void grant(const ClaimCandidate& candidate, const Assignment& assignment);
  Status start_leases(const std::vector<Result<Applied>>& applied);

  // queue_workers.cpp, queue_time.cpp
  Worker* worker_of(const WorkerLink* link);
  bool is_foreign(const HeldLease& held);
  Subject* live(const LeaseKey& lease, const Worker& worker);
  Status advance_live(const Subject& subject, const RunEvent& event, const AttemptFacts& facts = {});
  void progress(const Subject& held, const LeaseKey& lease, Phase phase);
  void note_started(const Subject& held, const AttemptEvent& report);
  void refuse_steps(const Subject& held, const LeaseKey& lease, const Error& why);
  void lose_missing(const Hello& hello);
  void pause_leases(Worker& worker);
  void drain_occupied(Worker& worker, OccupiedDevices occupied);
  void answer_ended(const Worker& worker, const AttemptEvent& report);
  void raise(const LeaseAlarm& alarm);
  void send(const std::string& worker_id, DaemonMessage order);

  // queue_changes.cpp
  Result<std::string> unused_tag(const ExperimentSpec& spec);
  Result<std::optional<ChangeAnswer>> answered(const std::string& request_id, const std::string& method);
  Result<ChangeAnswer> change_runs(const Selection&, const Eligible& eligible, RunEvent event,
                                   const std::string& method, const std::string& request_id);
  Result<ChangeAnswer> set_held(bool held, const std::string& method, const std::string& request_id);
  void remember(const std::string& request_id, const std::string& method, const ChangeAnswer&, ChangeList& list);

  RunStore& runs_;
  MetricStore& metrics_;
  const Clock& clock_;
  std::string home_;
  LeaseManager leases_;
  std::map<int64_t, Subject> live_;  // by attempt id
  std::map<std::string, Worker> workers_;
  std::map<int64_t, RunPolicy> policies_;  // by experiment id
  bool held_ = false;
  bool stopping_ = false;
  bool assign_ = true;         // runs or devices changed since devices were last assigned
  bool assign_again_ = false;  // and some of it can only be seen after the next commit
  std::optional<Error> broken_;
  std::function<void()> events_written_;

  // Staged since the last commit.
  std::vector<ChangeList> groups_;
  std::vector<size_t> grants_;         // which of the groups are new leases
  std::map<int64_t, RunLife> staged_;  // by run id: what the store does not say yet
  std::map<std::string, std::pair<std::string, ChangeAnswer>> staged_requests_;  // id -> (method, answer)
  std::vector<std::pair<std::shared_ptr<WorkerLink>, DaemonMessage>> outbox_;
  bool events_staged_ = false;
  bool ends_staged_ = false;  // of attempts
};

}  // namespace assay
