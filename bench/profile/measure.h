// One configuration measured, and printed as one JSON line.
#pragma once

#include <string>

#include "spec/run_config.h"

namespace assay::bench {

// FP8 takes three steps to find its scales; the next is recorded; then all is as it stays.
inline constexpr int warm_up_steps = 6;
// How often steps may be measured again because one of them was recorded anew.
inline constexpr int most_windows = 5;

bool uses_fp8(const RunConfig&);

// Prints the line; with `profile` also a table of the ops, made by a second trainer. False if the engine refused: then
// the line holds "error".
bool measure(const RunConfig&, const std::string& device, int steps, bool profile);

}  // namespace assay::bench
