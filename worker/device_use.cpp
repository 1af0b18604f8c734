#include "worker/device_use.h"

#include <fmt/format.h>

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

std::vector<int64_t> GpuUse::users(const std::string& device_id) {
  if (!nvml_ || gpus_of({device_id}).empty()) return {};
  auto pids = compute_processes(*nvml_, device_id);
  if (pids.ok()) return *std::move(pids);
  if (!std::exchange(warned_, true))
    log::warn("{}; devices are leased without looking whether they are free", pids.error().message);
  return {};
}

std::string name_process(int64_t pid) {
  auto name = read_file(fmt::format("/proc/{}/comm", pid));
  if (!name.ok()) return fmt::format("pid {}", pid);  // ended, or of another container
  while (!name->empty() && name->back() == '\n') name->pop_back();
  return fmt::format("{} (pid {})", *name, pid);
}

}  // namespace assay
