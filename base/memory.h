// The memory of this host.
#pragma once

#include <cstdint>
#include <string>

namespace assay {

struct HostMemory {
  int64_t total_bytes = 0;      // what the host has, or the limit of this control group if that is lower; 0 = not known
  int64_t available_bytes = 0;  // of it, what can be taken without swapping; 0 = not known
};

// Where the facts are read from; tests point them at files of their own.
struct MemorySources {
  std::string meminfo = "/proc/meminfo";
  std::string cgroup = "/sys/fs/cgroup";  // memory.max, memory.current and memory.stat in it
};

HostMemory host_memory(const MemorySources& = {});

}  // namespace assay
