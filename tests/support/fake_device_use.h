// Devices used by the processes that a test says.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "worker/device_use.h"

namespace assay {

class FakeDeviceUse final : public DeviceUse {
 public:
  std::optional<std::vector<int64_t>> users(const std::string& device_id) override {
    ++questions;
    if (!answers) return std::nullopt;
    return pids[device_id];
  }

  std::map<std::string, std::vector<int64_t>> pids;  // by device
  bool answers = true;
  int questions = 0;
};

}  // namespace assay
