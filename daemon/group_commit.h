// What inputs have staged since the last commit, and that commit: their changes in one transaction, then what is sent
// because of them.
//
// Each staged list is a group: all or nothing on its own. Invariants: a message is delivered only after everything that
// was staged before it is stored; the end of an attempt is stored only after its steps are synced (nobody sends a step
// of an ended attempt again); metrics.db knows of every attempt before its lease is sent. Whoever gets an error from
// write() drops what is staged and reads the store again: nothing was stored, or all groups but one that did not hold.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "daemon/worker_link.h"
#include "db/metric_store.h"
#include "db/run_store.h"

namespace assay {

class GroupCommit {
 public:
  GroupCommit(RunStore& runs, MetricStore& metrics) : runs_(runs), metrics_(metrics) {}

  void stage(ChangeList group);
  // A null link is that of a worker that is not connected: its next greeting makes good what it is not sent.
  void send(std::shared_ptr<WorkerLink> link, DaemonMessage message);
  void send_first(std::shared_ptr<WorkerLink> link, DaemonMessage message);  // before all that is staged
  // The store was written by a call of its own, such as insert_experiment.
  void written_apart() { written_ = true; }
  // The store cannot be read, so what is staged may be half of something: it must not be written.
  Error fail(const Error& why);

  const std::vector<ChangeList>& staged() const { return groups_; }
  const std::optional<Error>& failure() const { return failure_; }

  // Stores what is staged and, in the same transaction, `leases`: groups that may be refused one by one, each with an
  // answer of its own. An error: one of the staged groups did not hold, or nothing could be stored at all.
  Result<std::vector<Result<Applied>>> write(std::vector<ChangeList> leases);
  // After write(): sends the messages and tells that there are new events.
  void deliver();
  void drop();
  void on_events(std::function<void()> callback) { events_written_ = std::move(callback); }

 private:
  bool note_mark();

  RunStore& runs_;
  MetricStore& metrics_;
  std::function<void()> events_written_;
  std::vector<ChangeList> groups_;
  std::vector<std::pair<std::shared_ptr<WorkerLink>, DaemonMessage>> outbox_;
  std::optional<Error> failure_;
  bool written_ = false;        // to the store since deliver()
  int64_t last_event_id_ = -1;  // of the feed at deliver()
};

}  // namespace assay
