// The devices this host offers to the queue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace assay {

struct DeviceInfo {
  std::string id;    // "cpu:<host>"; stable over restarts
  std::string kind;  // "cpu"
  std::string name;  // "AMD EPYC 7B13, 2 cores"
  int64_t memory_bytes = 0;
};

// Where the facts are read from; tests point them at files of their own.
struct InventorySources {
  std::string cpuinfo = "/proc/cpuinfo";
  std::string meminfo = "/proc/meminfo";
  std::string cgroup_memory_max = "/sys/fs/cgroup/memory.max";
};

// The host's CPUs are one device: a run uses all cores this process may run on. Memory is what the host has, or the
// limit of the worker's control group if that is lower.
std::vector<DeviceInfo> list_devices(const std::string& host, const InventorySources& sources = {});

}  // namespace assay
