// Which backend a run gets on this machine.
#pragma once

#include <memory>

#include "engine/ops/backend.h"
#include "spec/run_config.h"

namespace assay {

struct OpenedBackend {
  Backend kind = Backend::cpu;  // never automatic
  std::unique_ptr<Ops> ops;
};

// decide_backend's answer (spec/backend.h) for the GPUs that this process was given in CUDA_VISIBLE_DEVICES, or where
// nobody set that, for those it finds. Throws EngineError(device_error) where that is cuda and it cannot be used: a run
// that was given a GPU does not train on the CPU instead.
OpenedBackend open_backend(const RunConfig&);

}  // namespace assay
