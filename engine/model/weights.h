// The parameters of a run: FP32 master, gradient, optimizer moments, and the copies matrix products read.
#pragma once

#include <string>
#include <vector>

#include "engine/model/arena.h"
#include "engine/ops/backend.h"
#include "engine/plan/parameters.h"

namespace assay {

struct Weight {
  ParameterSpec spec;
  Tensor master, grad;  // [groups, rows, cols]
  Tensor moment1, moment2;
  // What a product reads: `compute` or, for an FP8 weight, both orientations. [groups * rows, cols] for one matrix (q,
  // k and v are one), [groups, rows, cols] for a stack of experts. In FP32 runs `compute` is the master itself.
  Tensor compute;
  Quantized w8, w8t;    // w8t: [cols, rows]
  Tensor product_grad;  // `grad` in the shape of `compute`

  // See GemmFp8Args::promote: its gradients begin with a gradient of logits.
  bool promote_gradients() const { return spec.kind == ParameterKind::lm_head; }
};

class Weights {
 public:
  Weights(const RunConfig&, const ModelShape&, const Arena&);
  // Nanochat's initialisation; optimizer moments become zero.
  void initialise(int64_t seed, Ops&);
  // Once per step: masters -> `compute`, `w8`, `w8t`.
  void prepare(Ops&);
  // Those that no product writes: the first micro-batch of a step puts its products in the place of the others.
  void zero_grads(Ops&);

  std::vector<Weight>& all() { return all_; }
  const Weight& at(const std::string& name) const;  // throws EngineError(internal) if there is none
  const Weight* find(const std::string& name) const;

 private:
  ModelShape shape_;
  std::vector<Weight> all_;
};

// Initial values first .. first + count - 1 of one parameter; `first` is a multiple of 4. Source: nanochat's
// init_weights; the router's as in its mixture-of-experts drop-in.
std::vector<double> initial_values(const ParameterSpec&, const ModelShape&, int64_t seed, int64_t first, int64_t count);

ScaleMode scale_mode(Fp8Recipe, Fp8Operand);

}  // namespace assay
