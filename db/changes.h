// The changes of queue.db: what its writers hand to RunStore::apply. By the part that stores them.
//
// A list of changes is applied in order, all or nothing. Each names what it expects to find; when the row is not (any
// longer) so, apply() returns `aborted`, saying what was found, and nothing is written. A change of a state writes its
// event in the same transaction. A RunChange or AttemptChange names its kind; without it, it is invalid_argument.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "db/types.h"
#include "spec/run_outcome.h"

namespace assay {

// --- runs and attempts (db/run_writer.h) ---

// Compare-and-swap on (run, from). What is not set stays. finished_at is kept by the store: set on entering a terminal
// state, cleared on leaving one. `not_before` is cleared on leaving retry_wait. queued or retry_wait together with
// cancel_requested is refused by a constraint, so a racing retry cannot revive a cancelled run: a retry that means it
// sets cancel_requested = false.
struct RunChange {
  int64_t run_id = 0;
  RunState from = RunState::queued;
  std::optional<RunState> to;         // nothing = the state stays; an event is written all the same
  std::optional<int64_t> not_before;  // with to = retry_wait
  std::optional<bool> cancel_requested;
  bool count_lost_attempt = false;     // lost_attempts + 1
  bool count_stopped_attempt = false;  // stopped_attempts + 1
  std::optional<EventKind> kind;       // needed
  std::string cause;
};

// A lease: attempt n = (attempts so far, without those that never started) + 1 with the next lease epoch, state leased,
// phase load, holding every device of `device_ids` or none. Aborted when the run has a live attempt, a device is busy,
// drained or unknown, or belongs to another worker. Does not touch the run's state: send a RunChange to running before
// it.
struct NewAttempt {
  int64_t run_id = 0;
  std::string worker_id;
  std::vector<std::string> device_ids;
  std::string cause;
};

// Compare-and-swap on (attempt, lease_epoch, from). `to = ended` needs `outcome`, stores finished_at and frees the
// devices. An ended attempt never changes again. One that ends as not_started loses its number, and the run's next one
// gets it: it stays in the table and in the feed, and in no list of a run's attempts.
struct AttemptChange {
  int64_t attempt_id = 0;
  int64_t lease_epoch = 0;
  AttemptState from = AttemptState::leased;
  std::optional<AttemptState> to;  // nothing = the state stays and no event is written (a phase, a path)
  std::optional<Phase> phase;
  std::optional<StopReason> stop;  // needed on the way into `stopping`, by a constraint
  std::optional<AttemptOutcome> outcome;
  std::optional<int64_t> started_at;
  std::optional<std::string> log_path;
  std::optional<int64_t> resumed_from_step;
  std::optional<EventKind> kind;  // with `to`
  std::string cause;
};

// --- the fleet (db/fleet_tables.h) ---

// What a worker says of itself in its hello: the row is inserted or replaced, and so are its devices. A device it no
// longer names is removed unless an attempt holds it.
struct WorkerHello {
  WorkerRow worker;                // state is stored as given
  std::vector<DeviceRow> devices;  // `worker_id` and `state` of the rows are ignored
};
struct WorkerChange {
  std::string worker_id;
  WorkerState state = WorkerState::disconnected;
  std::string cause;
};
// Who else computes on a device, empty = nobody any longer. While somebody does no new attempt gets it; the one that
// holds it goes on. In the feed as device_drained and device_undrained; that other users have come instead is no event.
struct DeviceChange {
  std::string device_id;
  std::string drained_by;
};

// --- settings, the feed, requests (db/setting_table.h, db/event_table.h, db/request_table.h) ---

struct SettingChange {
  std::string key;
  std::string value;
  std::string cause;
};
// Something worth a line in the feed that changes no row.
struct EventNote {
  EventKind kind = EventKind::metrics_restored;
  std::string cause;
};
// The answer of a mutation, kept for limits::request_id_keep_ms so that a retried call gets it again. Aborted when the
// id is remembered already (the other copy of the call won: read its answer with find_request).
struct RequestResult {
  std::string request_id;
  std::string method;  // "cancel", "retry", ...: an id used for another method is invalid_argument
  std::string result;  // opaque to the store
};

using Change = std::variant<RunChange, NewAttempt, AttemptChange, WorkerHello, WorkerChange, DeviceChange,
                            SettingChange, EventNote, RequestResult>;
using ChangeList = std::vector<Change>;

struct Applied {
  std::vector<AttemptRow> attempts;  // one for each NewAttempt, in order
  int64_t last_event_id = 0;         // of the whole feed after this list
};

}  // namespace assay
