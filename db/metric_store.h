// metrics.db: every step of every attempt. Apart from queue.db so that a burst of metrics never delays a lease.
//
// Thread-safe: one lock, one connection. synchronous=NORMAL: what append() has stored survives the death of the daemon
// at once, and a power cut only from the next sync() on. A power cut before it may take the last appends, each as a
// whole with its acknowledgement. While the attempt lives this is mended: the worker is told the stored acked_seq when
// it greets, and sends again what its journal has. What the same cut has taken from the journal, too, was made after
// the newest checkpoint, before which a trainer syncs it; an attempt that goes on from there makes these steps again.
// Of an attempt that has ended nobody sends again, so whoever makes an end final calls sync() first. Fail-stop as
// RunStore.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "db/types.h"
#include "spec/step_metrics.h"

namespace assay {

struct Appended {
  int64_t stored = 0;     // steps that were new; the others were there already, with the same values
  int64_t acked_seq = 0;  // every journal record up to this one is stored: what to acknowledge
};

class MetricStore {
 public:
  // Opens or creates the file with mode 0600. `store_id` is RunStore::store_id(): a file of another queue is refused,
  // as its attempt ids mean other attempts. Other errors as RunStore::open.
  static Result<std::unique_ptr<MetricStore>> open(const std::string& path, const std::string& store_id);
  ~MetricStore();
  Status check();  // as RunStore::check

  // steps[i] is journal record first_seq + i. One transaction stores the new steps, the acknowledgement and the
  // summary. Records already acknowledged are skipped. A gap (first_seq > acked_seq + 1) is aborted and stores nothing:
  // the sender must go back to acked_seq(). A step that is stored with other values, or an acknowledged record whose
  // step is not stored, is already_exists, names both and stores nothing: these steps are another execution's, and
  // sending them again cannot help. The caller has checked the lease epoch.
  Result<Appended> append(int64_t attempt_id, int64_t first_seq, std::span<const StepMetrics> steps);
  Result<int64_t> acked_seq(int64_t attempt_id);  // 0 = none yet
  // All that append() has stored is on disk. Costs nothing if nothing was stored since the last time.
  Status sync();

  // How far queue.db had come when this file was written last. A counter never goes down.
  Result<QueueMark> queue_mark();
  // Survives a power cut with the next sync() that has steps to write: before it nothing depends on it.
  Status note(const QueueMark& mark);

  // Steps >= from_step in order; limit 0 = all.
  Result<std::vector<StepMetrics>> query(int64_t attempt_id, int64_t from_step, int64_t limit);
  // Kept up to date by append, so one row read whatever the number of steps. An attempt without steps has the default
  // summary (steps_observed 0).
  Result<AttemptSummary> summary(int64_t attempt_id);
  Result<std::vector<AttemptSummary>> summaries(std::span<const int64_t> attempt_ids);  // same order as the ids

 private:
  struct Impl;
  explicit MetricStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay
