// queue.db: experiments, runs, attempts, workers, devices and the event feed. Only the daemon opens it.
//
// Thread-safe: one lock, one connection. Every write is one BEGIN IMMEDIATE transaction with synchronous=FULL: when a
// call returns success its changes survive power loss; when it returns an error nothing of it was written.
//
// Paths are stored relative to the folder of the file, so that the folder can be moved, and read as they are now.
//
// Fail-stop: after a failed commit, or a full disk, I/O error or damaged page met while writing, every later write is
// refused with that first error; reads go on. Free the disk or repair the file, then open again.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "db/types.h"
#include "spec/experiment_spec.h"
#include "spec/run_outcome.h"

namespace assay {

// --- changes: the writes of the daemon's state machine --------------------------------------------------------------
//
// A list of changes is applied in order, all or nothing. Each names what it expects to find; when the row is not (any
// longer) so, apply() returns `aborted`, saying what was found, and nothing is written. Every RunChange, NewAttempt,
// AttemptChange and DeviceChange that alters a state writes an event with `kind` and `cause` in the same transaction;
// one that would, without a kind, is invalid_argument.

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

// --- what reads return ---------------------------------------------------------------------------------------------

struct ListedRun {
  RunRow run;              // config_toml is empty except from get_run
  std::string experiment;  // experiment name
  std::string tag;
  std::optional<AttemptRow> latest;  // newest attempt, nothing before the first; log_tail empty except from get_run
};

// Which runs. Empty fields select everything; the fields are combined with "and". What is named must be there: a tag, a
// name or an id that nothing has is not_found and says what may have been meant; a tag or name that means several is
// invalid_argument and lists them. db/run_store_names.cpp decides for every reader and every change.
struct RunFilter {
  // "name" (newest experiment that has it), "tag/name" or "experiment/tag/name".
  std::vector<std::string> names;
  std::vector<int64_t> ids;
  std::string tag;  // "tag" or "experiment/tag"
  int64_t experiment_id = 0;
  std::string cell_key;
  std::vector<RunState> states;
  int64_t limit = 0;  // 0 = all
};

struct RunCounts {
  std::array<int64_t, std::size(words_of(RunState{}))> by_state{};  // index = static_cast<size_t>(RunState)
  int64_t total() const;
  int64_t operator[](RunState state) const { return by_state[static_cast<size_t>(state)]; }
};

struct ClaimCandidate {
  int64_t run_id = 0;
  int64_t experiment_id = 0;
  RunState state = RunState::queued;  // queued or retry_wait: the `from` of the change that claims it
  int priority = 0;
  int devices = 1;
  Backend backend = Backend::automatic;  // RunRow::backend, set by insert_experiment from the run's config
};

struct AttemptContext {
  AttemptRow attempt;
  RunRow run;  // with config_toml
  std::string experiment;
  std::string tag;
  std::vector<std::string> device_ids;  // held now, sorted
};

struct DeviceListing {
  DeviceRow device;  // state: drained, else busy while an attempt holds it, else free
  std::string host;
  int64_t attempt_id = 0;  // the attempt that holds it, 0 = none
  std::string run;         // and its run's name
};

struct EnqueueResult {
  int64_t experiment_id = 0;
  std::string experiment;
  std::string tag;
  std::vector<std::string> added;  // run names, in the order of the spec
  int64_t already_there = 0;
  std::vector<std::string> updated;  // SpecComparison::updated
};

// A run of a spec beside what is queued under the tag.
struct RunComparison {
  enum class Is { new_run, already_there, another };
  Is is = Is::new_run;
  std::string difference;  // another: which values of the run that has its place or its name differ
};
// What enqueueing a spec under a tag would do.
struct SpecComparison {
  int64_t experiment_id = 0;         // 0 = nothing is queued under this experiment and tag
  std::vector<RunComparison> runs;   // in the spec's order; with `another` among them the spec is refused
  std::vector<std::string> updated;  // policies that change, "priority 0 -> 5 (3 waiting runs)"
};
// Why the spec is refused and what can be done: of one run, and of all of them, a line each; empty if it is not.
std::string conflict_text(const ExperimentSpec&, const std::string& tag, const RunComparison&);
std::string conflict_text(const ExperimentSpec&, const std::string& tag, const SpecComparison&);

class RunStore {
 public:
  // Opens or creates the file with mode 0600, migrates it, and checks it (see check()). The folder must exist. `clock`
  // must outlive the store. Errors name the path: not a database, damaged (data_loss), written by a newer program,
  // read-only, a folder, on a network file system.
  static Result<std::unique_ptr<RunStore>> open(const std::string& path, const Clock& clock);
  ~RunStore();

  // The greatest numbers given out so far.
  Result<QueueMark> mark();
  // What is given out from now on is greater than all that `mark` holds; `why` is written into the feed with it.
  Status move_past(const QueueMark& mark, const EventNote& why);

  // Names this queue for ever; metrics.db carries the same name so that the two files are never mixed up.
  const std::string& store_id() const;
  // Names an attempt for ever, "<store>/<run>/<attempt>/<when it was leased>": never used again, not by a new database
  // beside old run folders, nor by an older copy of this one that counts from where it was.
  std::string attempt_key(const AttemptRow& attempt) const;
  // Keys of the run's other attempts that started, whose checkpoints this one may continue; "" (checkpoints that name
  // nobody) with them, if a program that gave no keys may have leased one of them.
  Result<std::vector<std::string>> earlier_keys(const AttemptRow& attempt);
  // Reads every page (seconds for a large file): PRAGMA quick_check and foreign_key_check. data_loss names what is
  // wrong. open() itself checks the header, the size, every small table and every live row, not the history.
  Status check();

  // --- enqueue -----------------------------------------------------------------------------------------------------
  // What insert_experiment would do now; nothing is written.
  Result<SpecComparison> compare_experiment(const ExperimentSpec& spec, const std::string& tag);
  // One transaction. A run that the experiment (spec.experiment, tag) has already is left alone; the experiment's text
  // and policies, and the priority of its runs, become this spec's, with an event for each that changes. `tag` must not
  // be empty. A run that is there with another config or seed is already_exists (conflict_text), and nothing is
  // written. A repeated non-empty request_id returns the first call's result.
  Result<EnqueueResult> insert_experiment(const ExperimentSpec& spec, const std::string& tag,
                                          const std::string& request_id, const std::string& cause = "assay enqueue");

  // --- changes -----------------------------------------------------------------------------------------------------
  Result<Applied> apply(const ChangeList& changes);
  // Group commit: every list on its own is all or nothing, and one commit (one fsync) covers those that hold. The outer
  // error means that nothing at all was written; an inner error (aborted, ...) concerns that list alone.
  Result<std::vector<Result<Applied>>> apply_groups(const std::vector<ChangeList>& groups);

  // --- scheduling ----------------------------------------------------------------------------------------------------
  // The next runs to start: queued, or retry_wait with not_before <= now_ms; priority first, then age. Nothing while
  // the queue is held. O(log n + limit + runs waiting for a retry), whatever the history.
  Result<std::vector<ClaimCandidate>> claim_candidates(int64_t now_ms, int64_t limit);
  // When the earliest waiting retry is due, nothing if none waits.
  Result<std::optional<int64_t>> next_retry_at();
  // Every attempt that is not ended, oldest first: what a daemon takes over when it starts.
  Result<std::vector<AttemptContext>> live_attempts();
  Result<AttemptContext> get_attempt(int64_t attempt_id);  // ended ones too

  // --- reading -----------------------------------------------------------------------------------------------------

  // Queue order: running and paused first, then waiting (queued, retry_wait, held), both by priority then age, then
  // ended, latest first. Cost is that of the rows returned when no more than tag, states and limit are given.
  Result<std::vector<ListedRun>> list_runs(const RunFilter& filter);
  // How many runs `filter` selects without its limit, by state. O(1) rows per experiment unless names, ids or cell_key
  // is set.
  Result<RunCounts> count_runs(const RunFilter& filter);
  // A name as in RunFilter.
  Result<ListedRun> get_run(const std::string& name);
  Result<ListedRun> get_run_by_id(int64_t run_id);
  // Oldest first, complete rows, without those that never started.
  Result<std::vector<AttemptRow>> attempts_of(int64_t run_id);
  // Why the run's newest lease came to nothing; "" if its newest attempt did start, or there is none.
  Result<std::string> why_not_started(int64_t run_id);
  // "" = the newest experiment, else a tag as in RunFilter.
  Result<ExperimentRow> find_experiment(const std::string& tag);
  Result<ExperimentRow> get_experiment(int64_t id);
  // Newest first, without spec_text. limit 0 = all.
  Result<std::vector<ExperimentRow>> list_experiments(int64_t limit);

  // --- feed, fleet, settings, requests -----------------------------------------------------------------------------

  // Events with id > after_id, oldest first; limit 0 = all. experiment_id / run_id 0 = any.
  Result<std::vector<EventRow>> events_after(int64_t after_id, int64_t limit, int64_t run_id = 0);
  Result<int64_t> last_event_id();
  Result<std::vector<WorkerRow>> list_workers();
  Result<std::vector<DeviceListing>> list_devices();
  Result<std::string> setting(const std::string& key);  // "" when never set
  Result<bool> queue_held();
  // The queue-level hold as a change; writes the event queue_held or queue_released when it differs from what was.
  static SettingChange hold_queue(bool held, std::string cause);
  // The remembered answer of a mutation, nothing when there is none (or it expired). invalid_argument when the id was
  // used for another method.
  Result<std::optional<std::string>> find_request(const std::string& request_id, const std::string& method);

 private:
  struct Impl;
  explicit RunStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay
