// The journal of one attempt: an append-only file of step metrics, written by the trainer and read by the worker.
// Training never waits for the worker or the daemon: appending is one write(2). Whoever reads can be killed and start
// again; whoever writes can be killed at any byte, and the reader stops at the last whole record.
//
// Record: u32 payload length, u32 CRC-32 of (sequence, payload), u64 sequence (from 1, consecutive), payload. Little endian.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/unique_handle.h"
#include "spec/step_metrics.h"

namespace assay {

class JournalWriter {
 public:
  // Creates the file, or continues after its last whole record (a torn tail is cut off).
  static Result<JournalWriter> open(const std::string& path);
  // One record; an error (disk full, limits::journal_bytes) leaves the file as it was.
  Status append(const StepMetrics& metrics);
  int64_t last_seq() const { return last_seq_; }

 private:
  JournalWriter(UniqueFd fd, int64_t last_seq, int64_t bytes) : fd_(std::move(fd)), last_seq_(last_seq), bytes_(bytes) {}
  UniqueFd fd_;
  int64_t last_seq_ = 0;
  int64_t bytes_ = 0;
};

struct JournalRecord {
  int64_t seq = 0;
  StepMetrics metrics;
};

class JournalReader {
 public:
  explicit JournalReader(std::string path) : path_(std::move(path)) {}
  // Whole records after the ones already read, at most `max`; empty when there are none yet (or no file yet). A record
  // whose CRC is wrong although more data follows it is data_loss, named with its offset.
  Result<std::vector<JournalRecord>> read(int max);
  // Start again so that the next record read has sequence number seq + 1.
  Status seek_after(int64_t seq);

 private:
  std::string path_;
  int64_t offset_ = 0;
  int64_t last_seq_ = 0;
};

}  // namespace assay
