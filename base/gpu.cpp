#include "base/gpu.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/limits.h"

namespace assay {
namespace {

constexpr unsigned text_bytes = 96;  // NVML's own longest: a name or a UUID

template <typename R, typename... A>
bool find(void* library, const char* symbol, std::function<R(A...)>& function) {
  using Pointer = R (*)(A...);
  if (void* address = ::dlsym(library, symbol)) function = reinterpret_cast<Pointer>(address);
  return static_cast<bool>(function);
}

// Shuts the library down again whatever way a function is left.
struct Session {
  const Nvml& nvml;
  ~Session() { nvml.shutdown(); }
};

std::optional<GpuFacts> read_gpu(const Nvml& nvml, unsigned index, int* failure) {
  GpuFacts gpu;
  void* device = nullptr;
  char uuid[text_bytes] = {}, name[text_bytes] = {};
  Nvml::Memory memory{};
  for (const auto& step : std::initializer_list<std::function<int()>>{
           [&] { return nvml.device(index, &device); }, [&] { return nvml.uuid(device, uuid, text_bytes); },
           [&] { return nvml.name(device, name, text_bytes); }, [&] { return nvml.memory(device, &memory); },
           [&] { return nvml.compute_capability(device, &gpu.compute_major, &gpu.compute_minor); }})
    if ((*failure = step()) != 0) return std::nullopt;
  gpu.uuid = uuid;
  gpu.name = name;
  gpu.memory_bytes = static_cast<int64_t>(memory.total);
  gpu.memory_used_bytes = static_cast<int64_t>(memory.used);
  Nvml::Utilization load{};
  if (nvml.utilization && nvml.utilization(device, &load) == 0) gpu.utilization_percent = static_cast<int>(load.gpu);
  unsigned value = 0;
  if (nvml.temperature && nvml.temperature(device, 0, &value) == 0) gpu.temperature_c = static_cast<int>(value);
  if (nvml.power && nvml.power(device, &value) == 0) gpu.power_w = value / 1000.0;
  unsigned long long errors = 0;
  constexpr int uncorrected = 1, since_driver_load = 0;
  if (nvml.ecc_errors && nvml.ecc_errors(device, uncorrected, since_driver_load, &errors) == 0)
    gpu.ecc_uncorrected = static_cast<int64_t>(errors);
  return gpu;
}

}  // namespace

std::optional<Nvml> load_nvml(std::string* problem) {
  // Never closed: its functions are called until the program ends.
  void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    *problem = "no NVIDIA driver (libnvidia-ml.so.1 not found)";
    return std::nullopt;
  }
  Nvml nvml;
  const bool complete =
      find(library, "nvmlInit_v2", nvml.init) && find(library, "nvmlShutdown", nvml.shutdown) &&
      find(library, "nvmlErrorString", nvml.error_text) &&
      find(library, "nvmlSystemGetDriverVersion", nvml.driver_version) &&
      find(library, "nvmlDeviceGetCount_v2", nvml.count) &&
      find(library, "nvmlDeviceGetHandleByIndex_v2", nvml.device) && find(library, "nvmlDeviceGetUUID", nvml.uuid) &&
      find(library, "nvmlDeviceGetName", nvml.name) && find(library, "nvmlDeviceGetMemoryInfo", nvml.memory) &&
      find(library, "nvmlDeviceGetCudaComputeCapability", nvml.compute_capability);
  if (!complete) {
    *problem = "libnvidia-ml.so.1 lacks functions that every driver since 2013 has";
    return std::nullopt;
  }
  find(library, "nvmlDeviceGetUtilizationRates", nvml.utilization);
  find(library, "nvmlDeviceGetTemperature", nvml.temperature);
  find(library, "nvmlDeviceGetPowerUsage", nvml.power);
  find(library, "nvmlDeviceGetTotalEccErrors", nvml.ecc_errors);
  find(library, "nvmlDeviceGetHandleByUUID", nvml.device_by_uuid);
  find(library, "nvmlDeviceGetComputeRunningProcesses_v3", nvml.compute_processes);
  return nvml;
}

GpuInventory list_gpus(const std::optional<Nvml>& nvml, const std::string& load_problem) {
  GpuInventory inventory;
  if (!nvml) return {.problem = load_problem, .no_driver = true};
  const auto failed = [&](const char* what, int code) {
    inventory.problem = fmt::format("{}: {}", what, nvml->error_text(code));
    return inventory;
  };
  if (const int code = nvml->init(); code != 0) return failed("the NVIDIA driver does not answer", code);
  const Session session{*nvml};
  char version[text_bytes] = {};
  if (const int code = nvml->driver_version(version, text_bytes); code != 0)
    return failed("the NVIDIA driver does not tell its version", code);
  inventory.driver_version = version;
  unsigned count = 0;
  if (const int code = nvml->count(&count); code != 0) return failed("the GPUs cannot be counted", code);
  for (unsigned index = 0; index < count; ++index) {
    int failure = 0;
    if (auto gpu = read_gpu(*nvml, index, &failure))
      inventory.gpus.push_back(std::move(*gpu));
    else
      inventory.problem = fmt::format("GPU {} cannot be read: {}", index, nvml->error_text(failure));
  }
  return inventory;
}

GpuInventory list_gpus() {
  std::string problem;
  const auto nvml = load_nvml(&problem);
  return list_gpus(nvml, problem);
}

Result<std::vector<int64_t>> compute_processes(const Nvml& nvml, const std::string& uuid) {
  constexpr int too_little_room = 7;  // NVML_ERROR_INSUFFICIENT_SIZE: there may be more by the next call
  if (!nvml.device_by_uuid || !nvml.compute_processes)
    return Error{ErrorCode::unavailable, "the NVIDIA driver cannot list processes"};
  const auto failed = [&](int code) {
    return Error{ErrorCode::unavailable, fmt::format("processes of {}: {}", uuid, nvml.error_text(code))};
  };
  void* device = nullptr;
  if (const int code = nvml.device_by_uuid(uuid.c_str(), &device); code != 0) return failed(code);
  std::vector<Nvml::Process> found(32);
  unsigned count = 0;
  int code = too_little_room;
  while (code == too_little_room) {
    found.resize(2 * found.size());
    count = static_cast<unsigned>(found.size());
    code = nvml.compute_processes(device, &count, found.data());
  }
  if (code != 0) return failed(code);
  std::vector<int64_t> pids;
  for (unsigned i = 0; i < count; ++i) pids.push_back(found[i].pid);
  return pids;
}

std::string why_unusable(const GpuFacts& gpu, std::string_view driver_version) {
  if (gpu.compute_major != 9 || gpu.compute_minor != 0)
    return fmt::format("{} has compute capability {}.{}, the engine needs 9.0 (H100, H200): use such a GPU", gpu.name,
                       gpu.compute_major, gpu.compute_minor);
  int major = 0;
  std::from_chars(driver_version.data(), driver_version.data() + driver_version.size(), major);
  if (major < limits::oldest_nvidia_driver)
    return fmt::format("the NVIDIA driver {} is too old for CUDA 13: install {} or newer", driver_version,
                       limits::oldest_nvidia_driver);
  return {};
}

std::vector<GpuFacts> visible_gpus(const std::vector<GpuFacts>& gpus, const char* value) {
  if (!value) return gpus;
  std::vector<GpuFacts> visible;
  for (std::string_view rest = value; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view word = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    size_t index = gpus.size();
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), index);
    if (error != std::errc() || end != word.data() + word.size())
      index = word.empty() ? gpus.size() : std::find_if(gpus.begin(), gpus.end(), [&](const GpuFacts& gpu) {
                                             return gpu.uuid.starts_with(word);
                                           }) - gpus.begin();
    if (index >= gpus.size()) break;
    visible.push_back(gpus[index]);
  }
  return visible;
}

}  // namespace assay
