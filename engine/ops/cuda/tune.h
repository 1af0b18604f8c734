// Times the candidates of the tiling's knobs on the device.
#pragma once

#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "engine/ops/cuda/tiling.h"
#include "engine/ops/cuda/workspace.h"
#include "engine/ops/tiling.h"

namespace assay::cuda {

// Each kernel on random rows of the run's shape, as many as fit into the request's memory (65,536 at most), with the
// knobs before it at what was fastest; medians of interleaved launches. Waits for the device. A knob that the run does
// not use is not timed.
std::vector<KnobTimes> time_tilings(cudaStream_t, const TilingRequest&, Workspace);

// "tiling: norm 4 warps a block (232 us of 232..240), ..."
std::string describe(const std::vector<KnobTimes>&);

}  // namespace assay::cuda
