#include "engine/backend/open_backend.h"

#include <cstdlib>
#include <string_view>

#include "engine/ops/error.h"
#include "spec/backend.h"
#ifdef ASSAY_WITH_CUDA
#include "engine/ops/cuda/cuda_ops.h"
#endif

namespace assay {
namespace {

#ifdef ASSAY_WITH_CUDA
std::unique_ptr<Ops> open_cuda(const RunConfig& config, std::string* why) {
  return cuda_available(why)
             ? make_cuda_ops({.deterministic = config.train.deterministic, .coalesce_tiling = config.coalesce_tiling})
             : nullptr;
}
#else
bool cuda_available(std::string* why) {
  *why = "this build has the CPU engine only; `./run build` makes the CUDA engine where nvcc is installed";
  return false;
}
std::unique_ptr<Ops> open_cuda(const RunConfig&, std::string* why) {
  cuda_available(why);
  return nullptr;
}
#endif

// CUDA_VISIBLE_DEVICES, as a worker sets it: the GPUs of the lease, or nothing. CUDA takes numbers and UUIDs, and sees
// no GPU behind anything else: "-1", or SLURM's "NoDevFiles".
enum class Given { nothing_said, none, gpus };
Given given_devices(const char* value) {
  if (value == nullptr) return Given::nothing_said;
  const std::string_view text = value;
  const bool number = !text.empty() && text.front() >= '0' && text.front() <= '9';
  return number || text.starts_with("GPU-") || text.starts_with("MIG-") ? Given::gpus : Given::none;
}

}  // namespace

OpenedBackend open_backend(const RunConfig& config) {
  std::string why;
  const char* value = std::getenv("CUDA_VISIBLE_DEVICES");
  const Given given = given_devices(value);
  const bool gpus = given == Given::gpus || (given == Given::nothing_said && cuda_available(&why));
  const Backend kind = decide_backend(wanted_backend(config), config.devices, gpus ? config.devices : 0);
  if (kind == Backend::cpu) return {kind, make_cpu_ops()};
  if (std::unique_ptr<Ops> ops = open_cuda(config, &why)) return {kind, std::move(ops)};
  if (config.backend == Backend::cuda)
    throw EngineError(FailureReason::device_error,
                      "backend = \"cuda\": " + why + "; set backend = \"cpu\" or \"auto\" to run without a GPU",
                      "start");
  throw EngineError(FailureReason::device_error,
                    "backend = \"auto\", and the run was given a GPU (CUDA_VISIBLE_DEVICES = " + std::string(value) +
                        "): " + why + "; set backend = \"cpu\" to run without one",
                    "start");
}

}  // namespace assay
