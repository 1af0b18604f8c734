#include "engine/plan/step_program.h"

namespace assay {

void StepProgram::begin_gradient_codes(const std::string& name, int64_t cols) {
  if (s_.dense_fp8) begin_fp8(name + "_8", s_.tokens, cols);
  if (s_.wgrad_fp8) begin_fp8(name + "_8t", cols, s_.tokens);
}

void StepProgram::moe_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  if (!s_.codes_from_producers) begin_gradient_codes(n("dmoe"), s_.d);
  shared_backward(i);
  routed_backward(i);
  t_.tick();
  if (s_.codes_from_producers) begin_gradient_codes(n("dattention"), s_.d);
  if (s_.wgrad_fp8) begin_fp8(n("n2_8t"), s_.d, s_.tokens);
  for (const char* what : {"dxg", "dn_shared", "gate_grad", "rstd2", "picks", "probs", "weights", "slot"})
    t_.end(n(what));
  up_weight_grad(shared(i));
  end_dz(shared(i));
  if (s_.wgrad_fp8) end_fp8(n("n2_8t"));
  t_.end(n("n2"));
}

// The scales of what is in FP8 here are read once more, when the routed rows are gathered.
void StepProgram::shared_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  down_weight_grad(shared(i));
  if (s_.wgrad_fp8) end_fp8(n("dmoe_8t"));
  down_grad(shared(i));
  if (s_.dense_fp8) t_.end(n("dmoe_8.codes"));
  up_grad(shared(i), n("dn_shared"));
}

void StepProgram::routed_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  const bool fp8 = s_.routed_fp8, fp8_wgrad = fp8 && s_.wgrad_fp8;
  const int64_t rows = s_.routed_rows;
  t_.tick();
  if (fp8_wgrad)
    begin_fp8(n("dyg_8t"), s_.d, rows);
  else
    t_.begin(n("dyg"), act(rows * s_.d));
  if (fp8 && !fp8_wgrad) t_.tick();
  if (fp8) begin_fp8(n("dyg_8"), rows, s_.d);
  if (s_.dense_fp8) t_.end(n("dmoe_8.scales"));
  down_weight_grad(routed(i));
  if (fp8_wgrad)
    end_fp8(n("dyg_8t"));
  else if (fp8)
    t_.end(n("dyg"));
  t_.begin(n("gate_grad"), stat(rows));
  down_grad(routed(i));
  if (fp8)
    end_fp8(n("dyg_8"));
  else
    t_.end(n("dyg"));
  t_.tick();
  if (fp8_wgrad)
    begin_fp8(n("xg_8t"), s_.d, rows);
  else
    t_.begin(n("xg_again"), act(rows * s_.d));
  if (s_.wgrad_fp8) t_.end(n("n2_8.scales"));
  up_weight_grad(routed(i));
  if (fp8_wgrad)
    end_fp8(n("xg_8t"));
  else
    t_.end(n("xg_again"));
  up_grad(routed(i), n("dxg"));
  end_dz(routed(i));
  for (const char* what : {"groups", "token_of", "gate_of"}) t_.end(n(what));
}

void StepProgram::down_weight_grad(const FeedForward& f) {
  const bool fp8 = f.fp8 && s_.wgrad_fp8;
  if (fp8 && !s_.fused_fp8) {
    t_.tick();
    begin_fp8(f.name("hidden", "_8t"), s_.h, f.rows);
  }
  t_.tick();
  if (fp8) end_fp8(f.name("hidden", "_8t"));
}

void StepProgram::down_grad(const FeedForward& f) {
  t_.tick();
  if (s_.eager) t_.begin(f.name("du"), act(f.rows * s_.h));
  if (f.fp8 && s_.fused_fp8) {
    begin_fp8(f.name("dz", "_8"), f.rows, s_.h);
    begin_fp8(f.name("dz", "_8t"), s_.h, f.rows);
    end_fp8(f.name("hidden", "_8"));
  } else {
    t_.begin(f.name("dz"), act(f.rows * s_.h));
    t_.end(f.name("hidden"));
  }
  if (s_.eager) t_.end(f.name("du"));
  if (!f.fp8 || !s_.wgrad_fp8 || s_.fused_fp8) return;
  t_.tick();
  begin_fp8(f.name("dz", "_8"), f.rows, s_.h);
  begin_fp8(f.name("dz", "_8t"), s_.h, f.rows);
  t_.end(f.name("dz"));
}

void StepProgram::up_grad(const FeedForward& f, const std::string& dx) {
  if (f.fp8 && !s_.wgrad_fp8) {
    t_.tick();
    begin_fp8(f.name("dz", "_8"), f.rows, s_.h);
  }
  t_.tick();
  t_.begin(dx, act(f.rows * s_.d));
  if (f.fp8) end_fp8(f.name("dz", "_8"));
}

void StepProgram::up_weight_grad(const FeedForward& f) {
  t_.tick();
  if (f.fp8 && s_.wgrad_fp8) end_fp8(f.name("dz", "_8t"));
}

// After the later of the two.
void StepProgram::end_dz(const FeedForward& f) {
  if (!f.fp8 || !s_.wgrad_fp8) t_.end(f.name("dz"));
}

void StepProgram::attention_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  if (!s_.codes_from_producers) begin_gradient_codes(n("dattention"), s_.d);
  if (s_.wgrad_fp8) {
    begin_fp8(n("attention_8t"), s_.d, s_.tokens);
    t_.tick();
    end_fp8(n("attention_8t"));
    end_fp8(n("dattention_8t"));
  }
  t_.tick();
  t_.begin(n("dout"), act(s_.tokens * s_.d));
  if (s_.dense_fp8) end_fp8(n("dattention_8"));
  t_.tick();
  t_.begin(n("dqkv"), act(s_.tokens * 3 * s_.d));
  for (const char* what : {"dout", "attention", "lse"}) t_.end(n(what));
  project_qkv_back(i);
  t_.tick();
  if (s_.wgrad_fp8) begin_fp8(n("n1_8t"), s_.d, s_.tokens);
  if (s_.codes_from_producers && i > 0) begin_gradient_codes(layer_name(i - 1, "dmoe"), s_.d);
  for (const char* what : {"rstd1", "dn1"}) t_.end(n(what));
  t_.tick();
  t_.end(n("n1"));
  if (s_.wgrad_fp8) {
    end_fp8(n("n1_8t"));
    end_fp8(n("dqkv_8t"));
  } else {
    t_.end(n("dqkv"));
  }
}

void StepProgram::project_qkv_back(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  if (s_.codes_from_producers) begin_gradient_codes(n("dqkv"), 3 * s_.d);
  t_.begin(n("dn1"), act(s_.tokens * s_.d));
  t_.end(n("qkv"));
  t_.end(n("qk_rstd"));
  if (s_.dense_fp8 && !s_.codes_from_producers) {
    t_.tick();
    begin_gradient_codes(n("dqkv"), 3 * s_.d);
  }
  if (s_.wgrad_fp8) t_.end(n("dqkv"));  // nobody reads anything but the codes
  t_.tick();
  if (s_.dense_fp8) end_fp8(n("dqkv_8"));
}

void StepProgram::embed_backward() {
  t_.tick();
  if (config_.model.residual_lambdas) t_.end("dx0");
  t_.tick();
}

}  // namespace assay
