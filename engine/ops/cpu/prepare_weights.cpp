#include "engine/ops/prepare_weights.h"

#include "engine/ops/quantize.h"
#include "engine/ops/reduce.h"

namespace assay::cpu {

void prepare_weights(const PrepareWeightsArgs& a) {
  for (const WeightForms& w : a.weights) {
    if (w.copy) {
      cast({w.x, w.copy});
    } else {
      quantize({.x = w.x, .out = w.out, .transposed = w.transposed});
    }
  }
}

}  // namespace assay::cpu
