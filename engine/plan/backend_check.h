// Whether a backend can compute a run: spec/backend_limits.h, asked of a run's sizes. build_plan asks it, and with it
// `assay plan`, `assay enqueue` and the trainer.
#pragma once

#include "base/status.h"
#include "engine/plan/shape.h"
#include "spec/backend.h"

namespace assay {

// Of a run whose shape has the backend's row alignment.
RunSizes run_sizes(const RunConfig&, const ModelShape&);

// The first thing that the backend does not take, with the key that is to be changed. `backend` must not be automatic.
Status check_backend(const RunConfig&, const ModelShape&, Backend backend);

}  // namespace assay
