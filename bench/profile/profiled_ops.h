// The ops of a backend, each timed by the device's own marks. Nothing is recorded and replayed, so that every op is
// seen; a few ops stay in flight, so that the device does not wait for the host between them.
#pragma once

#include <memory>

#include "profile/profile.h"

namespace assay::bench {

// The profile outlives the ops.
std::unique_ptr<Ops> make_profiled_ops(std::unique_ptr<Ops> real, const CostContext&, Profile*);

}  // namespace assay::bench
