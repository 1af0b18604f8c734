// queue.db: experiments, runs, attempts, workers, devices and the event feed. Only the daemon opens it.
//
// The store owns the file, the connection, the lock and the transactions. What is done under them is in parts, by the
// tables they own (db/store_table.h, experiment_tables.h, run_writer.h, fleet_tables.h, event_table.h, setting_table.h,
// request_table.h) or read (run_reader.h, run_lists.h, name_resolver.h).
//
// Thread-safe: one lock, one connection. Every write is one BEGIN IMMEDIATE transaction with synchronous=FULL. When a
// call returns success, its changes survive a kill and a power cut. When it returns an error, nothing of it was done;
// only of a commit that failed in itself it is not known whether the next open will find it.
//
// Paths are stored relative to the folder of the file, so that the folder can be moved, and read as they are now.
//
// Fail-stop: after a failed commit, or a full disk, an I/O error, a damaged page or a file that may no longer be
// written, met in a write, every later write is refused with that first error; reads go on. Mend the disk or the file,
// then open again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "db/changes.h"
#include "db/run_reads.h"
#include "db/spec_comparison.h"
#include "db/types.h"
#include "spec/experiment_spec.h"

namespace assay {

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
  // error means that none of them was done; an inner error (aborted, ...) concerns that list alone.
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

  // Events with id > after_id, oldest first; limit 0 = all, run_id 0 = any.
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
