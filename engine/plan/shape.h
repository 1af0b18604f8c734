// The sizes of a run that the plan, the model and the trainer share, derived from its config once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "spec/run_config.h"

namespace assay {

// What a planner may choose beyond the config.
struct PlanOptions {
  bool double_precision = false;  // activations and weights in FP64: gradient checks
  int64_t static_capacity = 0;    // static execution: rows per expert, 0 = from capacity_factor
  int64_t row_alignment = 1;      // every expert's rows start at a multiple of it
};

struct ModelShape {
  int64_t batch = 0;   // sequences of a micro-batch on one device
  int64_t T = 0;       // tokens of a sequence
  int64_t tokens = 0;  // N = batch * T
  int64_t d = 0;       // model width
  int64_t h = 0;       // expert width
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t experts = 0;          // E
  int64_t top_k = 0;            // k
  int64_t vocab = 0;            // V
  int64_t layers = 0;           // L
  int64_t capacity = 0;         // rows per expert in static execution, else 0
  int64_t row_alignment = 1;    // of the first row of every expert
  int64_t routed_rows = 0;      // rows of the permuted buffers: k*N, or E*capacity, and what alignment costs
  bool has_gaps = false;        // some of them may be no expert's
  int64_t logits_rows = 0;      // rows of a chunk of logits
  size_t activation_bytes = 0;  // of one element
  size_t master_bytes = 0;      // of one element of the weights, gradients and optimizer state
  bool dense_fp8 = false;       // q, k, v, o and the shared expert
  bool routed_fp8 = false;      // routed experts
  bool head_fp8 = false;        // lm_head
  bool wgrad_fp8 = false;       // weight gradients of whatever is FP8; tensorwise only
  bool fused_fp8 = false;       // experts' products write FP8 alone: hidden and its gradient exist in nothing else
  // Gradients of the residual stream and of the packed projection come out of their producers in FP8 too: tensorwise.
  bool codes_from_producers = false;
  bool eager = false;
  Fp8Recipe recipe = Fp8Recipe::tensorwise;
};

ModelShape model_shape(const RunConfig&, const PlanOptions& = {});

// Rows per expert that hold `largest` rows with the config's headroom: a multiple of 128, never more than the
// micro-batch needs.
int64_t padded_capacity(const RunConfig&, int64_t largest);

// Scales of `groups` FP8 matrices [rows, cols]. Activations and gradients: 1, a row's, or 1x128; weights: 1, a row's,
// or 128x128.
enum class Fp8Operand { activation, weight };
int64_t scale_count(Fp8Recipe, Fp8Operand, int64_t groups, int64_t rows, int64_t cols);

// Delayed scales of the tensorwise recipe: one slot per quantised tensor whose bound is not known, and layer.
enum class Fp8Slot {
  attention,       // input of Wo
  shared_hidden,   // relu^2 of the shared expert
  hidden,          // relu^2 of the routed experts
  moe_grad,        // gradient of the MoE block's output
  shared_grad,     // gradient of the shared expert's up-projection
  routed_grad,     // gradient of the routed experts' up-projection
  attention_grad,  // gradient of Wo's output
  qkv_grad,        // gradient of the packed projection
  count,
};
int64_t fp8_slot(Fp8Slot, int64_t layer);
int64_t fp8_slot_count(const ModelShape&);
bool is_gradient(Fp8Slot);

// "layer3.qkv"
std::string layer_name(int64_t layer, const char* what);

}  // namespace assay
