// The metrics of one optimizer step: what the trainer writes, the store keeps and the report prints.
#pragma once

#include <cstdint>
#include <limits>

namespace assay {

struct StepMetrics {
  int64_t step = 0;            // 0-based
  double loss = 0;             // mean cross entropy over the step's tokens, nats
  double dt_ms = 0;            // wall time of the step
  double tok_per_sec = 0;      // total_batch_tokens / dt
  double mfu = 0;              // percent of the BF16 peak; ENGINE design, "Metrics of a step"
  double lr_scale = 0;         // schedule multiplier in [0, 1]
  double grad_norm = 0;        // L2 over all gradients, before the optimizer
  double expert_load_min = 0;  // smallest and largest expert load over layers, as a fraction of the fair share
  double expert_load_max = 0;
  double peak_mem_mib = 0;
  double val_loss = std::numeric_limits<double>::quiet_NaN();  // NaN = not evaluated after this step
  int64_t unix_ms = 0;                                         // when the step ended
};

}  // namespace assay
