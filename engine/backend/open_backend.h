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

// automatic: cuda if this build and this machine have it and the run's precision exists there (fp32 is the CPU's), else
// cpu. Throws EngineError(device_error) for a run that asks for cuda where there is none.
OpenedBackend open_backend(const RunConfig&);

}  // namespace assay
