// The one folder that holds all state of a daemon, and where in it programs meet.
#pragma once

#include <string>

#include "base/status.h"

namespace assay {

// `chosen` if not empty (--home), else $ASSAY_HOME, else $XDG_STATE_HOME/assay, else ~/.local/state/assay. Absolute,
// not created. The XDG rule asks that a relative $XDG_STATE_HOME be ignored.
Result<std::string> home_folder(const std::string& chosen = {});
// The same for people: what --home of every program says.
inline constexpr const char* home_help =
    "State folder (default: $ASSAY_HOME, else $XDG_STATE_HOME/assay, else ~/.local/state/assay)";

// The Unix socket of the daemon. An error if the path does not fit into a socket address (107 bytes on Linux).
Result<std::string> socket_path(const std::string& home);
// How a path inside `home` is stored, so that the folder can be moved: relative to it. A path elsewhere stays as it is.
std::string path_in_home(const std::string& home, const std::string& path);
// Where a path stored so is now.
std::string path_from_home(const std::string& home, const std::string& stored);
// The daemon's own log.
std::string daemon_log_path(const std::string& home);
// That of the worker the daemon starts.
std::string worker_log_path(const std::string& home);

}  // namespace assay
