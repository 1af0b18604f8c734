// Care for an attempt's trainer.log. The trainer writes to the file itself (a pipe through the worker would break when
// the worker dies), so the worker can only look at the size from time to time and cut.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"

namespace assay {

// A log that has grown past cap + slack is cut back to its first `cap` bytes, a note, and its last lines; what the
// trainer writes next follows. So the file stays below cap + slack plus what one poll interval brings, its beginning is
// what the run began with, and its end is what the run said last. Lines written during the cut itself may be lost.
Status cap_log(const std::string& path, size_t cap, size_t slack);

// The last whole lines, at most max_bytes; empty if there is no log.
std::string log_tail(const std::string& path, size_t max_bytes);

}  // namespace assay
