// What an op must do at least, read from its arguments: matrix products' operations, everything else's bytes.
#pragma once

#include <string>

#include "engine/ops/backend.h"

namespace assay::bench {

enum class Family { product, attention, memory, optimizer };
const char* to_string(Family);

struct OpCost {
  const char* op = "";
  std::string shape;  // what distinguishes calls of one op
  Family family = Family::memory;
  double flops = 0;    // 0: bound by memory
  double bytes = 0;    // every operand once
  double ceiling = 0;  // FLOP/s or bytes/s; ceiling_name says whose
  const char* ceiling_name = "";
};

// Rows that experts have in one micro-batch: how many are really multiplied is on the device only.
struct CostContext {
  int64_t routed_rows = 0;  // k * N
};

OpCost cost_of(const EmbedNormArgs&, const CostContext&);
OpCost cost_of(const EmbedNormGradArgs&, const CostContext&);
OpCost cost_of(const EmbedGradArgs&, const CostContext&);
OpCost cost_of(const MixNormArgs&, const CostContext&);
OpCost cost_of(const MixNormGradArgs&, const CostContext&);
OpCost cost_of(const GemmArgs&, const CostContext&);
OpCost cost_of(const GemmFp8Args&, const CostContext&);
OpCost cost_of(const QuantizeArgs&, const CostContext&);
OpCost cost_of(const PrepareWeightsArgs&, const CostContext&);
OpCost cost_of(const ScaleUpdateArgs&, const CostContext&);
OpCost cost_of(const ProjectQkvArgs&, const CostContext&);
OpCost cost_of(const QkNormRopeArgs&, const CostContext&);
OpCost cost_of(const QkNormRopeGradArgs&, const CostContext&);
OpCost cost_of(const AttentionArgs&, const CostContext&);
OpCost cost_of(const AttentionGradArgs&, const CostContext&);
OpCost cost_of(const NormRouteArgs&, const CostContext&);
OpCost cost_of(const MoeNormGradArgs&, const CostContext&);
OpCost cost_of(const RoutePlanArgs&, const CostContext&);
OpCost cost_of(const RouterBiasArgs&, const CostContext&);
OpCost cost_of(const PermuteArgs&, const CostContext&);
OpCost cost_of(const CombineArgs&, const CostContext&);
OpCost cost_of(const GroupedGemmArgs&, const CostContext&);
OpCost cost_of(const GroupedWgradArgs&, const CostContext&);
OpCost cost_of(const Relu2Args&, const CostContext&);
OpCost cost_of(const Relu2GradArgs&, const CostContext&);
OpCost cost_of(const SoftcapXentArgs&, const CostContext&);
OpCost cost_of(const SumSquaresArgs&, const CostContext&);
OpCost cost_of(const SumArgs&, const CostContext&);
OpCost cost_of(const AddArgs&, const CostContext&);
OpCost cost_of(const CastArgs&, const CostContext&);
OpCost cost_of(const FillZeroArgs&, const CostContext&);
OpCost cost_of(const AdamWArgs&, const CostContext&);
OpCost cost_of(const MuonArgs&, const CostContext&);
OpCost cost_of(const ExpertLoadArgs&, const CostContext&);
OpCost cost_of(const StepVerdictArgs&, const CostContext&);

}  // namespace assay::bench
