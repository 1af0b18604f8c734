// The devices this host offers to the queue.
#pragma once

#include <string>
#include <vector>

#include "base/gpu.h"
#include "base/memory.h"
#include "wire/messages.h"

namespace assay {

// Where the facts are read from; tests point them at files of their own.
struct InventorySources {
  std::string cpuinfo = "/proc/cpuinfo";
  MemorySources memory;
};

// The host's CPUs are one device: a run uses all cores this process may run on. Memory is what the host has, or the
// limit of the worker's control group if that is lower.
std::vector<DeviceInfo> list_devices(const std::string& host, const InventorySources& sources = {});

// The GPUs among `inventory` on which the engine can run and which this worker may use: `visible` is the value of
// CUDA_VISIBLE_DEVICES, null if it is not set. What is left out is logged, with why.
std::vector<DeviceInfo> offer_gpus(const GpuInventory& inventory, const char* visible);

// Those of a lease's device ids that are GPUs.
std::vector<std::string> gpus_of(const std::vector<std::string>& device_ids);

}  // namespace assay
