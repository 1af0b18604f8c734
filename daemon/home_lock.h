// One daemon per home folder.
#pragma once

#include <string>

#include "base/status.h"
#include "base/unique_handle.h"

namespace assay {

// Creates the folder with mode 0700 if it is missing and takes its lock for as long as the descriptor is open. Errors,
// one line each: not a folder, not ours or open to others, not writable, served by another daemon (with its pid).
Result<UniqueFd> lock_home(const std::string& home);

}  // namespace assay
