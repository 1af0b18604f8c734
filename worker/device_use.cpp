#include "worker/device_use.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "worker/device_inventory.h"

namespace assay {

GpuUse::GpuUse(std::optional<Nvml> nvml) {
  if (nvml && nvml->init() == 0) nvml_ = std::move(nvml);
}

GpuUse::~GpuUse() {
  if (nvml_) nvml_->shutdown();
}

std::optional<std::vector<int64_t>> GpuUse::users(const std::string& device_id) {
  if (!nvml_ || gpus_of({device_id}).empty()) return std::nullopt;
  auto pids = compute_processes(*nvml_, device_id);
  if (!pids.ok()) {
    if (silent_.insert(device_id).second)
      log::warn("{}; it is leased without looking whether others use it", pids.error().message);
    return std::nullopt;
  }
  silent_.erase(device_id);
  std::sort(pids->begin(), pids->end());
  return *std::move(pids);
}

std::string name_process(int64_t pid) {
  auto name = read_file(fmt::format("/proc/{}/comm", pid));
  if (!name.ok()) return fmt::format("pid {}", pid);  // ended, or of another container
  while (!name->empty() && name->back() == '\n') name->pop_back();
  return fmt::format("{} (pid {})", *name, pid);
}

}  // namespace assay
