// The plan of a run, built from its config before anything runs: shapes, FLOPs, checks, and an offline memory layout.
// Used by the trainer (to allocate one arena), by the daemon (to refuse what cannot fit) and by `assay plan`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/plan/shape.h"
#include "spec/run_config.h"

namespace assay {

// One named piece of the arena. Live from `first` to `last` (both inclusive) on the plan's time line; persistent
// buffers (weights, optimizer state) live over all of it.
struct PlannedBuffer {
  std::string name;  // "layer3.qkv"
  size_t bytes = 0;
  int first = 0;
  int last = 0;
  size_t offset = 0;  // set by lay_out
};

// Gives every buffer an offset (256-byte aligned) such that no two that are live at once overlap; returns the arena's
// bytes: within a few percent of the peak live bytes on these graphs.
size_t lay_out(std::vector<PlannedBuffer>& buffers);

struct RunPlan {
  ModelShape shape;
  int64_t parameters = 0;                // all of them
  int64_t active_matmul_parameters = 0;  // attention, router, k+1 experts, lm_head
  double flops_per_token = 0;            // docs/engine.md, "What is recorded of a step"
  int64_t static_capacity = 0;           // rows per expert in static execution, else 0
  std::vector<PlannedBuffer> buffers;
  size_t arena_bytes = 0;
  double peak_mem_mib = 0;  // arena + fixed overheads of the backend
};

// plan_error text on failure: which shape, which rule, what would be legal. `backend` must not be automatic.
Result<RunPlan> build_plan(const RunConfig& config, Backend backend, const PlanOptions& options = {});

}  // namespace assay
