// Reads a piece of an attempt's log for `assay logs`.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace assay {

struct LogChunk {
  std::string data;
  int64_t next_offset = 0;
  int64_t size = 0;
};

// `offset` in bytes, negative = from the end; `max_bytes` <= 0 means limits::log_chunk_bytes, which is also the most.
// The path was told by a worker: one that leads out of `home` is permission_denied. A log that is not there yet is
// empty.
Result<LogChunk> read_log(const std::string& home, const std::string& path, int64_t offset, int64_t max_bytes);

}  // namespace assay
