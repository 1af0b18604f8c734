// The buffers of one training step, in the order in which engine/model runs its operations. Names and sizes here are
// what the model asks the arena for; the arena refuses a disagreement.
#pragma once

#include "engine/plan/shape.h"
#include "engine/plan/timeline.h"

namespace assay {

std::vector<PlannedBuffer> describe_step(const RunConfig&, const ModelShape&);

}  // namespace assay
