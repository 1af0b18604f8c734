// The op interface the model is written over: one virtual method per op, implemented by the CPU twin and by CUDA.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/ops/activation.h"
#include "engine/ops/attention.h"
#include "engine/ops/gemm.h"
#include "engine/ops/grouped_gemm.h"
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
#include "engine/ops/tiling.h"

namespace assay {

// What a backend has done since it was made.
struct OpsCounters {
  int64_t launches = 0;     // kernels, library calls and fills handed to the device; the replay of a recording is one
  int64_t host_syncs = 0;   // times the host waited for all of the device's work
  int64_t allocations = 0;  // of device memory
  int64_t captures = 0;     // recordings made
  double capture_s = 0;     // and what they took
  int64_t device_bytes_peak = 0;  // most device memory allocated at once; 0 = not counted (the host's memory)
};

// Launches of a piece of work, kept by a backend to be replayed (on CUDA a graph).
class Recording {
 public:
  virtual ~Recording() = default;
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual void embed_norm(const EmbedNormArgs&) = 0;
  virtual void embed_norm_grad(const EmbedNormGradArgs&) = 0;
  virtual void embed_grad(const EmbedGradArgs&) = 0;
  virtual void mix_norm(const MixNormArgs&) = 0;
  virtual void mix_norm_grad(const MixNormGradArgs&) = 0;
  virtual void gemm(const GemmArgs&) = 0;
  virtual void gemm_fp8(const GemmFp8Args&) = 0;
  virtual void quantize(const QuantizeArgs&) = 0;
  virtual void prepare_weights(const PrepareWeightsArgs&) = 0;
  virtual void scale_update(const ScaleUpdateArgs&) = 0;
  virtual void project_qkv(const ProjectQkvArgs&) = 0;
  virtual void qk_norm_rope(const QkNormRopeArgs&) = 0;
  virtual void qk_norm_rope_grad(const QkNormRopeGradArgs&) = 0;
  virtual void attention(const AttentionArgs&) = 0;
  virtual void attention_grad(const AttentionGradArgs&) = 0;
  virtual void norm_route(const NormRouteArgs&) = 0;
  virtual void moe_norm_grad(const MoeNormGradArgs&) = 0;
  virtual void route_plan(const RoutePlanArgs&) = 0;
  virtual void router_bias_update(const RouterBiasArgs&) = 0;
  virtual void permute(const PermuteArgs&) = 0;
  virtual void combine(const CombineArgs&) = 0;
  virtual void grouped_gemm(const GroupedGemmArgs&) = 0;
  virtual void grouped_wgrad(const GroupedWgradArgs&) = 0;
  virtual void relu2(const Relu2Args&) = 0;
  virtual void relu2_grad(const Relu2GradArgs&) = 0;
  virtual void softcap_xent(const SoftcapXentArgs&) = 0;
  virtual void sum_squares(const SumSquaresArgs&) = 0;
  virtual void sum(const SumArgs&) = 0;
  virtual void add(const AddArgs&) = 0;
  virtual void cast(const CastArgs&) = 0;
  virtual void fill_zero(const FillZeroArgs&) = 0;
  virtual void adamw(const AdamWArgs&) = 0;
  virtual void muon(const MuonArgs&) = 0;
  virtual void expert_load(const ExpertLoadArgs&) = 0;
  virtual void step_verdict(const StepVerdictArgs&) = 0;

  // Device memory of `bytes`, 256-byte aligned, not initialised. Throws EngineError(out_of_memory) naming `what`.
  virtual void* allocate(size_t bytes, const char* what) = 0;
  virtual void release(void* memory) = 0;
  virtual void copy_to_device(void* dst, const void* src, size_t bytes) = 0;  // src may change on return
  virtual void copy_to_host(void* dst, const void* src, size_t bytes) = 0;    // waits for the device

  // Once, before anything of the run is in memory: chooses how kernels are cut into blocks. Changes no result. Returns
  // a line for the log that says what was chosen; empty if the backend has nothing to choose.
  virtual std::string choose_tiling(const TilingRequest&) { return {}; }

  // Whether ops return before the device has done them; then it pays to start work before looking at earlier results.
  virtual bool runs_ahead() const = 0;
  // A copy that the host does not wait for: dst, from allocate_host, is valid once wait() has returned for a later
  // mark.
  virtual void* allocate_host(size_t bytes, const char* what) = 0;
  virtual void release_host(void* memory) = 0;
  virtual void copy_to_host_later(void* dst, const void* src, size_t bytes) = 0;
  // A point behind everything handed to the device so far. At most 16 marks back can be waited for.
  virtual int64_t mark() = 0;
  virtual void wait(int64_t mark) = 0;
  // Time the device took from one mark to another, in milliseconds; both have been passed.
  virtual double elapsed_ms(int64_t from, int64_t to) = 0;

  // Does `work`: ops on the same tensors with the same arguments at every call, which have run outside a recording
  // before. The first call may record the launches into the empty `recording`, later ones replay it.
  virtual void replay(std::unique_ptr<Recording>& recording, const std::function<void()>& work) = 0;
  virtual OpsCounters counters() const = 0;
};

std::unique_ptr<Ops> make_cpu_ops();

}  // namespace assay
