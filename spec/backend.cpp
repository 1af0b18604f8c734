#include "spec/backend.h"

namespace assay {

bool is_fp8(Precision precision) {
  return precision == Precision::fp8_noexperts || precision == Precision::fp8_experts;
}

const BackendLimits& limits_of(Backend backend, Precision precision) {
  if (backend != Backend::cuda) return cpu_limits;
  return is_fp8(precision) ? cuda_fp8_limits : cuda_limits;
}

std::optional<std::string> precision_problem(Backend backend, Precision precision) {
  if (backend == Backend::automatic || precision != Precision::fp32 || limits_of(backend, precision).fp32)
    return std::nullopt;
  return fp32_refusal();
}

Backend wanted_backend(const RunConfig& config) {
  const bool only_on_cpu =
      config.backend == Backend::automatic && precision_problem(Backend::cuda, config.precision).has_value();
  return only_on_cpu ? Backend::cpu : config.backend;
}

Backend decide_backend(Backend wanted, int devices, int64_t most_gpus) {
  if (wanted != Backend::automatic) return wanted;
  return most_gpus >= devices ? Backend::cuda : Backend::cpu;
}

}  // namespace assay
