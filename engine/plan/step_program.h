// Private to engine/plan: the program of one training step as the timeline sees it. Every method names the buffers that
// one part of the model takes, in the order of its operations.
#pragma once

#include <string>

#include "engine/plan/shape.h"
#include "engine/plan/timeline.h"

namespace assay {

class StepProgram {
 public:
  StepProgram(const RunConfig& config, const ModelShape& shape) : config_(config), s_(shape) {}
  std::vector<PlannedBuffer> describe();

 private:
  static size_t count(int64_t elements, size_t bytes) { return static_cast<size_t>(elements) * bytes; }
  size_t act(int64_t elements) const { return count(elements, s_.activation_bytes); }
  size_t stat(int64_t elements) const { return count(elements, s_.master_bytes); }
  size_t ints(int64_t elements) const { return count(elements, 4); }
  // The products of one kind of expert; see engine/model/feed_forward.h.
  struct FeedForward {
    std::string prefix, suffix;  // of the buffers' names
    int64_t rows;
    bool fp8;
    std::string name(const char* what, const char* form = "") const { return prefix + what + suffix + form; }
  };
  FeedForward routed(int64_t i) const { return {layer_name(i, ""), "", s_.routed_rows, s_.routed_fp8}; }
  FeedForward shared(int64_t i) const { return {layer_name(i, ""), "_shared", s_.tokens, s_.dense_fp8}; }
  void begin_fp8(const std::string& name, Fp8Operand operand, int64_t groups, int64_t rows, int64_t cols);
  void begin_fp8(const std::string& name, int64_t rows, int64_t cols) {
    begin_fp8(name, Fp8Operand::activation, 1, rows, cols);
  }
  void end_fp8(const std::string& name);

  // program.cpp
  void parameters();
  void state();
  void compute_weights();
  // program_forward.cpp
  void embed();
  void attention_forward(int64_t i);
  void moe_forward(int64_t i);
  void end_n2_codes(int64_t layer);
  void end_expert_sum(int64_t i);
  void route(int64_t i);
  void up(const FeedForward&);
  void down(const FeedForward&);
  void head();
  // program_backward.cpp
  void moe_backward(int64_t i);
  void shared_backward(int64_t i);
  void routed_backward(int64_t i);
  void down_weight_grad(const FeedForward&);
  void down_grad(const FeedForward&);
  void up_weight_grad(const FeedForward&);
  void up_grad(const FeedForward&, const std::string& dx);
  void end_dz(const FeedForward&);
  void attention_backward(int64_t i);
  void project_qkv_back(int64_t i);
  void embed_backward();
  // What the reader of a gradient takes: codes, and those of an FP8 weight gradient.
  void begin_gradient_codes(const std::string& name, int64_t cols);

  const RunConfig& config_;
  const ModelShape& s_;
  Timeline t_;
};

}  // namespace assay
