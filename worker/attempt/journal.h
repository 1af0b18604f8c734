// The journal of one attempt: an append-only file of step metrics, written by the trainer and read by the worker.
// Training never waits for the worker or the daemon: appending is one write(2). Whoever reads can be killed and start
// again; whoever writes can be killed at any byte, and the reader stops at the last whole record.
//
// The head of the file says what the file's records hold: worker/attempt/journal_layout. A whole record
// that does not check out is damage unless it is the last.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "base/unique_handle.h"
#include "spec/step_metrics.h"
#include "worker/attempt/journal_layout.h"

namespace assay {

class JournalWriter {
 public:
  // Creates the file, or continues after its last whole record (a torn or damaged last record is cut off; damage before
  // it is data_loss) as the file was begun: see left_out(). One with fields that this program does not know is
  // failed_precondition.
  static Result<JournalWriter> open(const std::string& path, size_t max_bytes = limits::journal_bytes);
  // One record; an error (disk full, limits::journal_bytes) leaves the file as it was.
  Status append(const StepMetrics& metrics);
  int64_t last_seq() const { return last_seq_; }
  // Fields for which a file begun by an older program has no place: they are not recorded.
  std::vector<std::string> left_out() const { return layout_.absent_fields(); }

 private:
  JournalWriter(UniqueFd fd, std::string path, JournalLayout layout, int64_t last_seq, size_t max_bytes)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        layout_(std::move(layout)),
        last_seq_(last_seq),
        max_bytes_(max_bytes) {}
  UniqueFd fd_;  // empty after a failed append that could not be taken back: every later append fails too
  std::string path_;
  JournalLayout layout_;
  int64_t last_seq_ = 0;
  size_t max_bytes_ = 0;
};

struct JournalRecord {
  int64_t seq = 0;
  StepMetrics metrics;
};

class JournalReader {
 public:
  explicit JournalReader(std::string path) : path_(std::move(path)) {}
  // Whole records after the ones already read, at most `max`; empty when there are none yet (or no file yet). A record
  // that does not check out although more data follows it is data_loss, named with its offset; the good records before
  // it are returned first. A file shorter than what was already read is data_loss too. Fields that this program does
  // not know are left out, with a line in the log. Costs one open and one read, the first time two.
  Result<std::vector<JournalRecord>> read(int max);
  // Start again so that the next record read has sequence number seq + 1. data_loss if the file does not hold record
  // seq.
  Status seek_after(int64_t seq);

 private:
  // Reads the layout unless it is known; nothing while the file has none yet.
  Status learn_layout(int fd);
  size_t offset() const { return layout_ ? layout_->offset(last_seq_) : 0; }

  std::string path_;
  std::optional<JournalLayout> layout_;
  int64_t last_seq_ = 0;
};

}  // namespace assay
