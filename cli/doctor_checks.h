// The checks of `assay doctor`, each on its own and with what it looks at as a parameter.
#pragma once

#include <string>
#include <vector>

#include "base/gpu.h"
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
// What runs on a GPU need besides the GPU.
struct GpuNeeds {
  bool cuda_engine = false;   // this build has it
  bool device_files = false;  // /dev/nvidiactl: somebody meant there to be a driver
  int64_t cudnn_version = 0;  // as cudnnGetVersion says, 0 = not found
};
GpuNeeds find_gpu_needs();
// One check a GPU, and cuDNN if one of them is usable; one line if there is none.
std::vector<Check> check_gpus(const GpuInventory& inventory, const GpuNeeds& needs);
Check check_data_tools(const std::string& folder);

}  // namespace assay
