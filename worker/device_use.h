// Which processes use a device right now. Asked before a device is leased: other people's work on it would slow both
// runs down, or take the memory that the plan counts on.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/gpu.h"

namespace assay {

class DeviceUse {
 public:
  virtual ~DeviceUse() = default;
  // Process ids, in order; nothing where it cannot be found out.
  virtual std::optional<std::vector<int64_t>> users(const std::string& device_id) = 0;
};

// GPUs by the driver, whose library stays open for the life of this object: opening it wakes every GPU, which can take
// a second each. A host's CPUs are shared with everybody and have no users.
class GpuUse final : public DeviceUse {
 public:
  explicit GpuUse(std::optional<Nvml> nvml);
  ~GpuUse() override;
  GpuUse(const GpuUse&) = delete;
  GpuUse& operator=(const GpuUse&) = delete;
  std::optional<std::vector<int64_t>> users(const std::string& device_id) override;

 private:
  std::optional<Nvml> nvml_;      // open
  std::set<std::string> silent_;  // devices of which the driver does not tell, which the log knows
};

// "python3 (pid 4711)"
std::string name_process(int64_t pid);

}  // namespace assay
