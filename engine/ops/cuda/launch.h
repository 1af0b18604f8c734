// The CUDA ops: each launches the kernels of its CPU twin (same name and arguments, engine/ops/*.h) on a stream and
// returns. No allocation, no synchronisation, no read of device memory by the host, so all may be captured in a graph.
// Activations are bf16 or f32; statistics, weights and gradients f32. What an op cannot do it refuses with fail_op.
// Contents of device memory (tokens, picks, slots, targets) are trusted: who wrote them has checked them.
#pragma once

#include <cuda_runtime.h>

#include "engine/ops/activation.h"
#include "engine/ops/cuda/tiling.h"
#include "engine/ops/cuda/workspace.h"
#include "engine/ops/loss.h"
#include "engine/ops/moe_grad.h"
#include "engine/ops/norm.h"
#include "engine/ops/optimizer.h"
#include "engine/ops/permute.h"
#include "engine/ops/prepare_weights.h"
#include "engine/ops/quantize.h"
#include "engine/ops/reduce.h"
#include "engine/ops/rope.h"
#include "engine/ops/router.h"
#include "engine/ops/step_state.h"

namespace assay::cuda {

// --- norm, embedding (norm.cu, norm_grad.cu, embed_grad.cu) --------------------------------------------------------
void embed_norm(cudaStream_t, const EmbedNormArgs&, const Tiling& = {});
void mix_norm(cudaStream_t, const MixNormArgs&, const Tiling& = {});
void mix_norm_grad(cudaStream_t, const MixNormGradArgs&, Workspace, const Tiling& = {});
void embed_norm_grad(cudaStream_t, const EmbedNormGradArgs&, Workspace, const Tiling& = {});
void embed_grad(cudaStream_t, const EmbedGradArgs&, Workspace);

// --- rope (rope.cu) ------------------------------------------------------------------------------------------------
void qk_norm_rope(cudaStream_t, const QkNormRopeArgs&, const Tiling& = {});
// What qk_norm_rope does to v, alone: of BF16 heads of 128, behind a product that has done q and k (project_qkv.cu).
void add_value_embeddings(cudaStream_t, const QkNormRopeArgs&, const Tiling& = {});
void qk_norm_rope_grad(cudaStream_t, const QkNormRopeGradArgs&, Workspace, const Tiling& = {});

// --- router and rows in expert order (router.cu, moe_grad.cu, route_plan.cu, permute.cu) ---------------------------
void norm_route(cudaStream_t, const NormRouteArgs&, const Tiling& = {});
void moe_norm_grad(cudaStream_t, const MoeNormGradArgs&, Workspace, const Tiling& = {});
void route_plan(cudaStream_t, const RoutePlanArgs&, Workspace);
void router_bias_update(cudaStream_t, const RouterBiasArgs&);
void permute(cudaStream_t, const PermuteArgs&, Workspace, const Tiling& = {});
void combine(cudaStream_t, const CombineArgs&);

// --- activation, loss, optimizer (activation.cu, loss.cu, adamw.cu) --------------------------------------------------
void relu2(cudaStream_t, const Relu2Args&);
void relu2_grad(cudaStream_t, const Relu2GradArgs&);
void softcap_xent(cudaStream_t, const SoftcapXentArgs&, Workspace);
void adamw(cudaStream_t, const AdamWArgs&);
void expert_load(cudaStream_t, const ExpertLoadArgs&);
void step_verdict(cudaStream_t, const StepVerdictArgs&);

// --- reductions and casts (reduce.cu, quantize.cu, prepare_weights.cu) ---------------------------------------------
void sum_squares(cudaStream_t, const SumSquaresArgs&, Workspace);
void sum(cudaStream_t, const SumArgs&, Workspace);
void add(cudaStream_t, const AddArgs&);
void cast(cudaStream_t, const CastArgs&);
void fill_zero(cudaStream_t, const FillZeroArgs&);
void quantize(cudaStream_t, const QuantizeArgs&, Workspace);
void prepare_weights(cudaStream_t, const PrepareWeightsArgs&, Workspace);
void scale_update(cudaStream_t, const ScaleUpdateArgs&);

}  // namespace assay::cuda
