// What must hold of a database file before SQLite opens it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace assay {

// Creates the file with mode 0600, or narrows an existing one to it. Errors: a folder, not a regular file, no such
// folder, no permission, a network file system.
Status prepare_database_file(const std::string& path);

// The name of the network file system with this statfs(2) type, "" for a local one. `mount_type` is the type in
// /proc/self/mountinfo: only it tells one FUSE file system from another.
std::string_view network_file_system(uint64_t statfs_type, std::string_view mount_type);

}  // namespace assay
