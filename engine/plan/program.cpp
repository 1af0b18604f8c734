#include "engine/plan/program.h"

#include "engine/plan/parameters.h"
#include "engine/plan/step_program.h"

namespace assay {

std::vector<PlannedBuffer> StepProgram::describe() {
  parameters();
  state();
  compute_weights();
  t_.begin("tokens", count(s_.tokens, 4));
  t_.begin("targets", count(s_.tokens, 4));
  embed();
  for (int64_t i = 0; i < s_.layers; ++i) {
    attention_forward(i);
    moe_forward(i);
  }
  head();
  for (int64_t i = s_.layers; i-- > 0;) {
    moe_backward(i);
    attention_backward(i);
  }
  embed_backward();
  return t_.finish();
}

void StepProgram::begin_fp8(const std::string& name, Fp8Operand operand, int64_t groups, int64_t rows, int64_t cols) {
  t_.begin(name + ".codes", count(groups * rows * cols, 1));
  t_.begin(name + ".scales", count(scale_count(s_.recipe, operand, groups, rows, cols), 4));
}

void StepProgram::end_fp8(const std::string& name) {
  t_.end(name + ".codes");
  t_.end(name + ".scales");
}

void StepProgram::parameters() {
  for (const ParameterSpec& p : list_parameters(config_)) {
    t_.keep("param." + p.name, stat(p.numel()));
    t_.keep("grad." + p.name, stat(p.numel()));
    t_.keep("moment1." + p.name, stat(p.numel()));
    t_.keep("moment2." + p.name, stat(second_moment_count(p)));
  }
}

void StepProgram::state() {
  t_.keep("cos", stat(s_.T * s_.head_dim / 2));
  t_.keep("sin", stat(s_.T * s_.head_dim / 2));
  t_.keep("router_bias", ints(s_.layers * s_.experts));
  t_.keep("router_total", ints(s_.layers * s_.experts));
  t_.keep("router_peak", ints(s_.layers * s_.experts));
  t_.keep("counts", ints(s_.layers * s_.experts));
  t_.keep("loss_sum", 8);
  t_.keep("verdict", 4);
  t_.keep("square_sums", count(static_cast<int64_t>(list_parameters(config_).size()), 8));
  if (!s_.dense_fp8) return;
  for (const char* name : {"fp8.scale", "fp8.amax", "fp8.format_max"}) t_.keep(name, count(fp8_slot_count(s_), 4));
  t_.keep("fp8.ignored_amax", 4);
}

// Cast or quantised once per step, dead once the last gradient is there.
void StepProgram::compute_weights() {
  for (const ParameterSpec& p : list_parameters(config_)) {
    if (!is_gemm_weight(p.kind)) continue;
    if (!weight_is_fp8(s_, p)) {
      if (s_.activation_bytes != s_.master_bytes) t_.begin("compute." + p.name, act(p.numel()));
      continue;
    }
    // q, k and v are one product: one matrix. Experts are a stack.
    const int64_t groups = p.routed ? p.groups : 1, rows = p.routed ? p.rows : p.groups * p.rows;
    begin_fp8("compute8." + p.name, Fp8Operand::weight, groups, rows, p.cols);
    begin_fp8("compute8t." + p.name, Fp8Operand::weight, groups, p.cols, rows);
  }
}

std::vector<PlannedBuffer> describe_step(const RunConfig& config, const ModelShape& shape) {
  return StepProgram(config, shape).describe();
}

}  // namespace assay
