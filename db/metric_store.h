// metrics.db: every step of every attempt. Apart from queue.db so that a burst of metrics never delays a lease.
//
// Thread-safe: one lock, one connection. synchronous=NORMAL: what append() stored survives a killed daemon; power loss
// may take the last moments, steps and acknowledgement together, and the worker's journal sends them again.
// Fail-stop as RunStore: after a failed commit, a full disk, an I/O error or a damaged page, writes are refused.
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
  int64_t stored = 0;     // steps that were new; the others were there already and stay as they are
  int64_t acked_seq = 0;  // every journal record up to this one is stored: what to acknowledge
};

class MetricStore {
 public:
  // Opens or creates the file with mode 0600. `store_id` is RunStore::store_id(): a file of another queue is refused,
  // as its attempt ids mean other attempts. Other errors as RunStore::open.
  static Result<std::unique_ptr<MetricStore>> open(const std::string& path, const std::string& store_id);
  ~MetricStore();
  Status write_health() const;
  Status check();  // as RunStore::check

  // steps[i] is journal record first_seq + i. One transaction stores the new steps, the acknowledgement and the
  // summary. Records already acknowledged are skipped. A gap (first_seq > acked_seq + 1) is aborted and stores nothing:
  // the sender must go back to acked_seq(). The caller has checked the lease epoch.
  Result<Appended> append(int64_t attempt_id, int64_t first_seq, std::span<const StepMetrics> steps);
  Result<int64_t> acked_seq(int64_t attempt_id);  // 0 = none yet

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
