// The checks of `assay doctor`, each on its own and with what it looks at as a parameter.
#pragma once

#include <string>
#include <vector>

#include "cli/context.h"

namespace assay {

enum class Health { ok, warn, fail };

struct Check {
  Health health = Health::ok;
  std::string name;    // "home", "gpu"
  std::string found;   // one line
  std::string advice;  // what to do; empty if ok
};

Check check_programs(const std::string& folder);
Check check_home(const std::string& home);
// The daemon, its version and its workers, and who may use its socket.
std::vector<Check> check_daemon(const std::string& home);
Check check_machine();
Check check_blas();
// `proc` and `dev` are "/proc" and "/dev".
Check check_gpu(const std::string& proc, const std::string& dev);
Check check_data_tools();

}  // namespace assay
