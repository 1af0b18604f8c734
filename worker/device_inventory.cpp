#include "worker/device_inventory.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "base/log.h"
#include "base/text.h"

namespace assay {
namespace {

constexpr std::string_view cpu_prefix = "cpu:";

// The text after `key` and the colon on the first line that starts with it.
std::optional<std::string> field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return std::nullopt;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

std::vector<DeviceInfo> list_devices(const std::string& host, const InventorySources& sources) {
  const int cores = usable_cores();
  const std::string model = field(sources.cpuinfo, "model name").value_or("CPU");
  return {{.id = std::string(cpu_prefix) + host,
           .kind = DeviceKind::cpu,
           .name = model + ", " + plural(cores, "core"),
           .memory_bytes = host_memory(sources.memory).total_bytes}};
}

std::vector<DeviceInfo> offer_gpus(const GpuInventory& inventory, const char* visible) {
  std::vector<DeviceInfo> offered;
  if (inventory.no_driver) {
    log::info("no GPU: {}", inventory.problem);
    return offered;
  }
  if (!inventory.problem.empty()) log::warn("{}", inventory.problem);
  for (const GpuFacts& gpu : visible_gpus(inventory.gpus, visible)) {
    if (const std::string why = why_unusable(gpu, inventory.driver_version); !why.empty())
      log::warn("{} is not offered: {}", gpu.uuid, why);
    else
      offered.push_back({.id = gpu.uuid, .kind = DeviceKind::cuda, .name = gpu.name, .memory_bytes = gpu.memory_bytes});
  }
  return offered;
}

std::vector<std::string> gpus_of(const std::vector<std::string>& device_ids) {
  std::vector<std::string> gpus;
  for (const std::string& id : device_ids)
    if (!id.starts_with(cpu_prefix)) gpus.push_back(id);
  return gpus;
}

}  // namespace assay
