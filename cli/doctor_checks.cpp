#include "cli/doctor_checks.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/home.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/unique_handle.h"
#include "base/version.h"
#include "cli/client.h"
#include "cli/format.h"

namespace assay {
namespace {

constexpr int64_t info_deadline_ms = 5'000;
constexpr double low_disk_bytes = 1ull << 30;    // a handful of checkpoints and logs
constexpr double low_memory_bytes = 2ull << 30;  // the demo's model, its worker and the daemon

// File systems on which SQLite's locks and fsync cannot be trusted. Numbers: statfs(2), linux/magic.h.
const char* network_file_system(long type) {
  switch (static_cast<unsigned long>(type) & 0xffffffffu) {
    case 0x6969:
      return "NFS";
    case 0xff534d42:
      return "CIFS";
    case 0xfe534d42:
      return "SMB2";
    case 0x517b:
      return "SMB";
    case 0x0bd00bd0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x00c36400:
      return "Ceph";
    case 0x5346414f:
      return "AFS";
    case 0x01021997:
      return "9P";
    default:
      return nullptr;
  }
}

// The nearest folder on the way up that exists: where a missing home would be made.
std::string existing_ancestor(const std::string& path) {
  std::filesystem::path p = path;
  std::error_code ignored;
  while (!p.empty() && p != p.root_path() && !std::filesystem::exists(p, ignored)) p = p.parent_path();
  return p.string();
}

// Tried for real: permissions alone say nothing about a read-only file system, and root passes every access(2).
bool can_write_into(const std::string& folder) {
  std::string probe = folder + "/.assay_doctor_XXXXXX";
  const UniqueFd fd(::mkstemp(probe.data()));
  if (!fd) return false;
  ::unlink(probe.c_str());
  return true;
}

Check check_socket(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return {Health::fail, "socket", fmt::format("{}: {}", path, std::strerror(errno)),
            "restart the daemon: assay down && assay up"};
  if (!S_ISSOCK(info.st_mode))
    return {Health::fail, "socket", path + " is not a socket", "move that file away, then: assay up"};
  if ((info.st_mode & 077) != 0)
    return {Health::fail, "socket", fmt::format("{} has mode {:04o}: others can reach it", path, info.st_mode & 0777),
            fmt::format("chmod 600 {}", path)};
  if (info.st_uid != ::geteuid())
    return {Health::warn, "socket", fmt::format("{} belongs to user {}", path, info.st_uid),
            "use your own home, or ask that user"};
  return {Health::ok, "socket", fmt::format("{} mode {:04o}, yours alone", path, info.st_mode & 0777), {}};
}

Check check_one_gpu(const GpuFacts& gpu, const std::string& driver, const GpuNeeds& needs) {
  const std::string found =
      fmt::format("{}, {} memory, compute capability {}.{}, driver {}", gpu.name,
                  format_bytes(static_cast<double>(gpu.memory_bytes)), gpu.compute_major, gpu.compute_minor, driver);
  if (const std::string why = why_unusable(gpu, driver); !why.empty())
    return {Health::warn, "gpu", found, why + "; runs use the CPU until then"};
  if (!needs.cuda_engine)
    return {Health::warn, "gpu", found + "; this build has no CUDA engine",
            "`./run build` where nvcc 13.0 is installed; runs use the CPU until then"};
  if (gpu.ecc_uncorrected.value_or(0) > 0)
    return {Health::warn, "gpu", fmt::format("{}; {} uncorrected memory errors", found, *gpu.ecc_uncorrected),
            "results may be wrong: reset the GPU (nvidia-smi -r), and replace it if they come back"};
  return {Health::ok, "gpu", found, {}};
}

Check check_cudnn(int64_t version) {
  if (version == 0)
    return {Health::fail, "cudnn", "libcudnn.so.9 not found: attention on the GPU needs it",
            "install cuDNN 9.10 or newer for CUDA 13, or add its folder to LD_LIBRARY_PATH"};
  const std::string found = fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  if (version < limits::oldest_cudnn)
    return {Health::fail, "cudnn", found + " is too old: attention on the GPU needs 9.10",
            "install cuDNN 9.10 or newer for CUDA 13"};
  return {Health::ok, "cudnn", found, {}};
}

}  // namespace

Check check_programs(const std::string& folder) {
  std::string missing;
  for (const char* program : {"assayd", "assay-worker", "assay-trainer"})
    if (::access((folder + "/" + program).c_str(), X_OK) != 0)
      missing += (missing.empty() ? "" : ", ") + std::string(program);
  if (!missing.empty())
    return {Health::fail, "programs", fmt::format("{} not found in {}", missing, folder),
            "install all programs of one build in one folder"};
  return {Health::ok, "programs", fmt::format("assayd, assay-worker, assay-trainer in {}", folder), {}};
}

Check check_home(const std::string& home) {
  const std::string there = existing_ancestor(home);
  struct statfs system {};
  if (::statfs(there.c_str(), &system) != 0)
    return {Health::fail, "home", fmt::format("{}: {}", home, std::strerror(errno)),
            "choose another folder with --home or ASSAY_HOME"};
  if (const char* network = network_file_system(system.f_type))
    return {Health::fail, "home", fmt::format("{} is on {}, where databases get damaged", home, network),
            "choose a local disk with ASSAY_HOME"};
  if (!can_write_into(there))
    return {Health::fail, "home", fmt::format("{} is not writable", there),
            "choose another folder with --home or ASSAY_HOME"};
  if (auto socket = socket_path(home); !socket.ok())
    return {Health::fail, "home", socket.error().message, "choose a shorter ASSAY_HOME"};
  const double free = static_cast<double>(system.f_bavail) * static_cast<double>(system.f_bsize);
  const std::string found =
      fmt::format("{}{}, local, {} free", home, there == home ? "" : " (not made yet)", format_bytes(free));
  if (free < low_disk_bytes)
    return {Health::warn, "home", found, "free some disk: logs, metrics and checkpoints go there"};
  return {Health::ok, "home", found, {}};
}

std::vector<Check> check_daemon(const std::string& home) {
  auto client = Client::connect(home);
  if (!client.ok() && client.error().code == ErrorCode::unavailable)
    return {{Health::warn, "daemon", "not running", "assay up"}};
  if (!client.ok()) return {{Health::fail, "daemon", client.error().message, "use a home of your own"}};
  auto info = client->call(&Rpc::Info, {}, info_deadline_ms);
  if (!info.ok()) return {{Health::warn, "daemon", info.error().message, "assay up"}};
  std::vector<Check> checks;
  checks.push_back({Health::ok,
                    "daemon",
                    fmt::format("version {}, pid {}{}", info->version(), info->pid(),
                                info->fault_injection() ? ", fault injection allowed" : ""),
                    {}});
  if (info->version() != version())
    checks.back() = {Health::warn, "daemon", fmt::format("version {}, but assay is {}", info->version(), version()),
                     "assay down --keep-running && assay up"};
  if (auto socket = socket_path(home); socket.ok()) checks.push_back(check_socket(*socket));
  if (info->workers_connected() == 0)
    checks.push_back(
        {Health::fail, "worker", "no worker is connected: nothing can run", "its log and the daemon's are in " + home});
  else
    checks.push_back({Health::ok, "worker", plural(info->workers_connected(), "worker") + " connected", {}});
  return checks;
}

Check check_machine() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return {Health::warn, "machine", std::strerror(errno), "sysinfo(2) should not fail"};
  const double memory = static_cast<double>(info.totalram) * info.mem_unit;
  const std::string found =
      fmt::format("{}, {} memory", plural(std::thread::hardware_concurrency(), "CPU core"), format_bytes(memory));
  if (memory < low_memory_bytes)
    return {Health::warn, "machine", found, "small models only; `assay plan` says what fits"};
  return {Health::ok, "machine", found, {}};
}

std::vector<Check> check_gpus(const GpuInventory& inventory, const GpuNeeds& needs) {
  if (inventory.no_driver && needs.device_files)
    return {{Health::warn, "gpu", "NVIDIA device files, but " + inventory.problem,
             "install the driver's libraries, or give them to the container; runs use the CPU until then"}};
  if (inventory.no_driver) return {{Health::ok, "gpu", inventory.problem + ": runs use the CPU engine", {}}};
  std::vector<Check> checks;
  if (!inventory.problem.empty())
    checks.push_back({Health::warn, "gpu", inventory.problem,
                      "look at nvidia-smi and the kernel's log; runs use the CPU until then"});
  if (inventory.problem.empty() && inventory.gpus.empty())
    checks.push_back({Health::ok,
                      "gpu",
                      fmt::format("driver {}, but no GPU: runs use the CPU engine", inventory.driver_version),
                      {}});
  bool usable = false;
  for (const GpuFacts& gpu : inventory.gpus) {
    checks.push_back(check_one_gpu(gpu, inventory.driver_version, needs));
    usable = usable || checks.back().health == Health::ok;
  }
  if (usable) checks.push_back(check_cudnn(needs.cudnn_version));
  return checks;
}

GpuNeeds find_gpu_needs() {
  GpuNeeds needs;
#ifdef ASSAY_WITH_CUDA
  needs.cuda_engine = true;
#endif
  needs.device_files = ::access("/dev/nvidiactl", F_OK) == 0;
  if (void* library = ::dlopen("libcudnn.so.9", RTLD_LAZY | RTLD_LOCAL)) {
    using VersionFunction = size_t (*)();
    if (const auto version = reinterpret_cast<VersionFunction>(::dlsym(library, "cudnnGetVersion")))
      needs.cudnn_version = static_cast<int64_t>(version());
    ::dlclose(library);
  }
  return needs;
}

Check check_data_tools(const std::string& folder) {
  if (::access((folder + "/assay-data").c_str(), X_OK) != 0)
    return {Health::warn, "data tools", "assay-data not found in " + folder,
            "prepare token shards on a machine that has it, and copy them here"};
  return {Health::ok, "data tools", "in assay-data: assay data prepare", {}};
}

}  // namespace assay
