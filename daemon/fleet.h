// The workers: who is connected, which devices they have, who else uses those, and who refused a lease lately.
//
// Invariants: a device belongs to the one worker that named it last; occupied devices are devices of their worker; a
// worker is connected exactly while it has a link. Sends nothing and stores nothing: it answers with what is to be
// stored. Pauses are by the monotonic clock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "daemon/scheduler.h"
#include "daemon/worker_link.h"
#include "db/run_store.h"

namespace assay {

class Fleet {
 public:
  explicit Fleet(const Clock& clock) : clock_(clock) {}

  // Instead of all that is known: workers of the store, none of them connected.
  void load(const std::vector<WorkerRow>& rows);
  void close_all(const std::string& why);

  // --- connections ---
  WorkerHello greet(std::shared_ptr<WorkerLink> link, const Hello& hello);  // replaces an older link of the worker
  WorkerChange disconnect(const std::string& worker_id);
  // The worker whose present link it is, "" = nobody's.
  std::string worker_of(const WorkerLink* link) const;
  std::shared_ptr<WorkerLink> link_of(const std::string& worker_id) const;  // null: not connected
  bool is_connected(const std::string& worker_id) const { return link_of(worker_id) != nullptr; }
  std::vector<std::shared_ptr<WorkerLink>> links() const;
  // The hello comes from the worker's host, which was started anew since: the worker's processes are gone.
  bool is_of_earlier_boot(const std::string& worker_id, const Hello& hello) const;
  // From now on no device is offered.
  void drain() { draining_ = true; }
  bool draining() const { return draining_; }

  // --- signs of life ---
  void heartbeat(const std::string& worker_id);
  bool is_talking(const std::string& worker_id) const;  // connected, with a heartbeat within limits::lease_ms

  // --- devices ---
  // Who else computes on the worker's devices now. What of that is news. An attempt that holds such a device goes on.
  ChangeList occupied(const std::string& worker_id, OccupiedDevices now);
  bool any_occupied(const std::string& worker_id, const std::vector<std::string>& device_ids) const;
  // The devices of connected workers, `listed` as in the store. `busy`: held by attempts.
  std::vector<WorkerSlots> slots(const std::vector<DeviceListing>& listed, const std::set<std::string>& busy) const;

  // --- refusals ---
  // What a worker could not start it can start of no other run either, most likely: it gets no lease for a while, each
  // time longer until it has started one.
  void refused(const std::string& worker_id);
  void started_one(const std::string& worker_id);
  bool end_pauses();  // true: one is over
  std::optional<int64_t> ms_to_end_of_pause() const;

 private:
  struct Worker {
    WorkerRow row;
    std::set<std::string> device_ids;
    OccupiedDevices occupied;          // those of them that are drained
    std::shared_ptr<WorkerLink> link;  // null: not connected
    int64_t heartbeat_at = 0;          // monotonic ms
    int64_t refused_pause_ms = 0;      // how long it got no lease after its last refusal
    int64_t lease_again_at = 0;        // monotonic ms, 0 = now
  };

  const Clock& clock_;
  std::map<std::string, Worker> workers_;
  bool draining_ = false;
};

}  // namespace assay
