// The journal of one attempt: an append-only file of step metrics, written by the trainer and read by the worker.
// Training never waits for the worker or the daemon: appending is one write(2). Whoever reads can be killed and start
// again; whoever writes can be killed at any byte, and the reader stops at the last whole record.
//
// Record: u32 payload length, u32 CRC-32 of (sequence, payload), u64 sequence (from 1, consecutive), payload. Little
// endian. Payload: u8 version (1), i64 step, ten f64 (loss, dt_ms, tok_per_sec, mfu, lr_scale, grad_norm,
// expert_load_min, expert_load_max, peak_mem_mib, val_loss), i64 unix_ms. So every record has journal_record_size
// bytes, record n begins at byte (n-1) * journal_record_size, and a whole record that does not check out is damage
// unless it is the last.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "base/unique_handle.h"
#include "spec/step_metrics.h"

namespace assay {

inline constexpr size_t journal_payload_size = 1 + 8 + 10 * 8 + 8;
inline constexpr size_t journal_record_size = 4 + 4 + 8 + journal_payload_size;
static_assert(journal_record_size <= limits::journal_record_bytes);

class JournalWriter {
 public:
  // Creates the file, or continues after its last whole record (a torn or damaged last record is cut off; damage before
  // it is data_loss).
  static Result<JournalWriter> open(const std::string& path, size_t max_bytes = limits::journal_bytes);
  // One record; an error (disk full, limits::journal_bytes) leaves the file as it was.
  Status append(const StepMetrics& metrics);
  int64_t last_seq() const { return last_seq_; }

 private:
  JournalWriter(UniqueFd fd, std::string path, int64_t last_seq, size_t max_bytes)
      : fd_(std::move(fd)), path_(std::move(path)), last_seq_(last_seq), max_bytes_(max_bytes) {}
  UniqueFd fd_;  // empty after a failed append that could not be taken back: every later append fails too
  std::string path_;
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
  // it are returned first. A file shorter than what was already read is data_loss too. Costs one open and one read.
  Result<std::vector<JournalRecord>> read(int max);
  // Start again so that the next record read has sequence number seq + 1. data_loss if the file does not hold record
  // seq.
  Status seek_after(int64_t seq);

 private:
  std::string path_;
  int64_t offset_ = 0;
  int64_t last_seq_ = 0;
};

}  // namespace assay
