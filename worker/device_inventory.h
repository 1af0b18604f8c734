// The devices this host offers to the queue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/gpu.h"
#include "base/memory.h"

namespace assay {

struct DeviceInfo {
  std::string id;    // "cpu:<host>", or a GPU's UUID; stable over restarts
  std::string kind;  // "cpu" | "cuda"
  std::string name;  // "AMD EPYC 7B13, 2 cores" | "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
};

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
