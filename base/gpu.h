// What the NVIDIA driver says of this machine's GPUs, through its management library (NVML). The library is looked for
// at run time: a program that asks needs neither CUDA nor a driver to start.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace assay {

// The functions of libnvidia-ml.so.1 that are used, with C types: 0 is success everywhere, a device is an opaque
// handle. Tests fill in their own. Optional ones may be empty, and may fail for a GPU that has no such sensor.
struct Nvml {
  struct Memory {  // bytes
    unsigned long long total, free, used;
  };
  struct Process {  // nvmlProcessInfo_t
    unsigned pid;
    unsigned long long used_memory;
    unsigned gpu_instance, compute_instance;
  };
  struct Utilization {  // per cent of the last second or so
    unsigned gpu, memory;
  };
  std::function<int()> init;
  std::function<int()> shutdown;
  std::function<const char*(int)> error_text;
  std::function<int(char*, unsigned)> driver_version;
  std::function<int(unsigned*)> count;
  std::function<int(unsigned, void**)> device;
  std::function<int(void*, char*, unsigned)> uuid;
  std::function<int(void*, char*, unsigned)> name;
  std::function<int(void*, Memory*)> memory;
  std::function<int(void*, int*, int*)> compute_capability;
  std::function<int(void*, Utilization*)> utilization;                  // optional
  std::function<int(void*, int, unsigned*)> temperature;                // optional; sensor 0, degrees Celsius
  std::function<int(void*, unsigned*)> power;                           // optional; milliwatts
  std::function<int(void*, int, int, unsigned long long*)> ecc_errors;  // optional; (kind, counter)
  std::function<int(const char*, void**)> device_by_uuid;               // optional
  std::function<int(void*, unsigned*, Process*)> compute_processes;     // optional; (room and then number, processes)
};

// Nothing where there is no library, `problem` then holds one line.
std::optional<Nvml> load_nvml(std::string* problem);

struct GpuFacts {
  std::string uuid;  // "GPU-8f4c…": names the device for good, CUDA_VISIBLE_DEVICES understands it
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t memory_bytes = 0;
  int64_t memory_used_bytes = 0;
  int compute_major = 0;  // compute capability
  int compute_minor = 0;
  std::optional<int> utilization_percent;
  std::optional<int> temperature_c;
  std::optional<double> power_w;
  std::optional<int64_t> ecc_uncorrected;  // errors since the driver was loaded
};

struct GpuInventory {
  std::string driver_version;  // "580.95.05"
  std::vector<GpuFacts> gpus;
  std::string problem;     // one line: why nothing, or not all, could be read; empty = all was
  bool no_driver = false;  // the ordinary case of a machine without a GPU: nothing is wrong
};

GpuInventory list_gpus(const std::optional<Nvml>& nvml, const std::string& load_problem);
GpuInventory list_gpus();  // of this machine

// Ids of the processes of this PID namespace that compute on the GPU. To be asked between nvml.init() and
// nvml.shutdown(). An error: the driver does not tell.
Result<std::vector<int64_t>> compute_processes(const Nvml& nvml, const std::string& uuid);

// Why the engine cannot run on the GPU, in one line with what to do; empty = it can.
std::string why_unusable(const GpuFacts& gpu, std::string_view driver_version);

// Those that CUDA programs started from here would see: `value` is CUDA_VISIBLE_DEVICES, indices or the first letters
// of UUIDs with commas between, ending at the first that names nothing. Null = all.
std::vector<GpuFacts> visible_gpus(const std::vector<GpuFacts>& gpus, const char* value);

}  // namespace assay
