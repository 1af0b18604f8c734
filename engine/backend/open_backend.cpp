#include "engine/backend/open_backend.h"

#include "engine/ops/error.h"
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
std::unique_ptr<Ops> open_cuda(const RunConfig&, std::string* why) {
  *why = "this build has the CPU engine only; `./run build` makes the CUDA engine where nvcc is installed";
  return nullptr;
}
#endif

}  // namespace

OpenedBackend open_backend(const RunConfig& config) {
  std::string why;
  if (wanted_backend(config) != Backend::cpu)
    if (std::unique_ptr<Ops> ops = open_cuda(config, &why)) return {Backend::cuda, std::move(ops)};
  if (config.backend == Backend::cuda)
    throw EngineError(FailureReason::device_error,
                      "backend = \"cuda\": " + why + "; set backend = \"cpu\" or \"auto\" to run without a GPU",
                      "start");
  return {Backend::cpu, make_cpu_ops()};
}

}  // namespace assay
