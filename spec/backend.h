// Which backend a run gets, and what that backend takes. Here alone is `backend = "auto"` decided.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "spec/backend_limits.h"
#include "spec/run_config.h"
#include "spec/words.h"

namespace assay {

// What the run asks for, and what is stored with it: its backend, but the CPU for an automatic one in a precision that
// only the CPU computes.
Backend wanted_backend(const RunConfig&);

// What a run gets that wants `wanted` (wanted_backend's answer) on `devices` devices where the best worker has
// `most_gpus` GPUs, busy or not: never automatic. The forecast asks with every device that was ever offered, the
// scheduler with the workers that are connected, and the trainer with the GPUs it was given.
Backend decide_backend(Backend wanted, int devices, int64_t most_gpus);

// What a backend computes on; it must not be automatic.
inline DeviceKind device_kind(Backend backend) {
  return backend == Backend::cuda ? DeviceKind::cuda : DeviceKind::cpu;
}

// `backend` must not be automatic.
const BackendLimits& limits_of(Backend backend, Precision precision);

// Why the backend cannot compute in this precision; nothing: it can, or it is automatic, which avoids it.
std::optional<std::string> precision_problem(Backend backend, Precision precision);

bool is_fp8(Precision);

}  // namespace assay
