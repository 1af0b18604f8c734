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
  void route(int64_t i);
  void moe_forward(int64_t i);
  void head();
  // program_backward.cpp
  void moe_backward(int64_t i);
  void shared_backward(int64_t i);
  void routed_backward(int64_t i);
  void attention_backward(int64_t i);
  void embed_backward();
  void wgrad_operands(const std::string& prefix, int64_t rows, int64_t dy_cols, int64_t x_cols);

  const RunConfig& config_;
  const ModelShape& s_;
  Timeline t_;
};

}  // namespace assay
