#include "engine/plan/step_program.h"

namespace assay {

// Both operands of an FP8 weight gradient: quantised, and transposed so that their rows are the summed dimension.
void StepProgram::wgrad_operands(const std::string& prefix, int64_t rows, int64_t dy_cols, int64_t x_cols) {
  t_.tick();
  begin_fp8(prefix + "_dy8", rows, dy_cols);
  begin_fp8(prefix + "_dy8t", dy_cols, rows);
  begin_fp8(prefix + "_x8", rows, x_cols);
  begin_fp8(prefix + "_x8t", x_cols, rows);
  t_.tick();
  for (const char* what : {"_dy8", "_dy8t", "_x8", "_x8t"}) end_fp8(prefix + what);
}

void StepProgram::moe_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  if (s_.dense_fp8) begin_fp8(n("dmoe_8"), s_.tokens, s_.d);
  if (s_.wgrad_fp8) begin_fp8(n("dmoe_8t"), s_.d, s_.tokens);
  shared_backward(i);
  routed_backward(i);
  t_.tick();
  t_.begin(n("dn2"), act(s_.tokens * s_.d));
  t_.end(n("dxg"));
  t_.end(n("dn_shared"));
  t_.tick();
  t_.begin(n("dweights"), stat(s_.tokens * s_.top_k));
  t_.tick();
  for (const char* what : {"gate_grad", "dweights", "picks", "probs", "weights", "slot"}) t_.end(n(what));
  t_.tick();
  for (const char* what : {"n2", "rstd2", "dn2"}) t_.end(n(what));
}

// The scales of what is in FP8 here are read once more, when the routed rows are gathered.
void StepProgram::shared_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  down_weight_grad(shared(i));
  if (s_.wgrad_fp8) end_fp8(n("dmoe_8t"));
  down_grad(shared(i));
  if (s_.dense_fp8) t_.end(n("dmoe_8.codes"));
  if (s_.wgrad_fp8) {
    t_.tick();
    begin_fp8(n("n2_8t"), s_.d, s_.tokens);
  }
  up_weight_grad(shared(i));
  if (s_.wgrad_fp8) t_.end(n("n2_8t.codes"));
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
  down_grad(routed(i));
  t_.begin(n("gate_grad"), stat(rows));
  if (fp8)
    end_fp8(n("dyg_8"));
  else
    t_.end(n("dyg"));
  t_.tick();
  if (fp8_wgrad)
    begin_fp8(n("xg_8t"), s_.d, rows);
  else
    t_.begin(n("xg_again"), act(rows * s_.d));
  if (s_.wgrad_fp8) t_.end(n("n2_8t.scales"));
  up_weight_grad(routed(i));
  if (fp8_wgrad)
    end_fp8(n("xg_8t"));
  else
    t_.end(n("xg_again"));
  up_grad(routed(i), n("dxg"));
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
}

void StepProgram::up_weight_grad(const FeedForward& f) {
  const bool fp8 = f.fp8 && s_.wgrad_fp8;
  if (fp8 && !s_.fused_fp8) {
    t_.tick();
    begin_fp8(f.name("dz", "_8"), f.rows, s_.h);
    begin_fp8(f.name("dz", "_8t"), s_.h, f.rows);
    t_.end(f.name("dz"));
  }
  t_.tick();
  if (fp8) end_fp8(f.name("dz", "_8t"));
}

void StepProgram::up_grad(const FeedForward& f, const std::string& dx) {
  if (f.fp8 && !s_.wgrad_fp8) {
    t_.tick();
    begin_fp8(f.name("dz", "_8"), f.rows, s_.h);
    t_.end(f.name("dz"));
  }
  t_.tick();
  t_.begin(dx, act(f.rows * s_.d));
  if (f.fp8)
    end_fp8(f.name("dz", "_8"));
  else
    t_.end(f.name("dz"));
}

void StepProgram::attention_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  if (s_.dense_fp8) begin_fp8(n("dattention_8"), s_.tokens, s_.d);
  if (s_.wgrad_fp8) wgrad_operands(n("wo"), s_.tokens, s_.d, s_.d);
  t_.tick();
  t_.begin(n("dout"), act(s_.tokens * s_.d));
  if (s_.dense_fp8) end_fp8(n("dattention_8"));
  t_.tick();
  t_.begin(n("dqkv"), act(s_.tokens * 3 * s_.d));
  for (const char* what : {"dout", "attention", "lse"}) t_.end(n(what));
  t_.tick();
  t_.begin(n("dn1"), act(s_.tokens * s_.d));
  t_.end(n("qkv"));
  t_.end(n("qk_rstd"));
  t_.tick();
  if (s_.dense_fp8) begin_fp8(n("dqkv_8"), s_.tokens, 3 * s_.d);
  if (s_.wgrad_fp8) wgrad_operands(n("wqkv"), s_.tokens, 3 * s_.d, s_.d);
  t_.tick();
  if (s_.dense_fp8) end_fp8(n("dqkv_8"));
  t_.end(n("dqkv"));
  t_.tick();
  for (const char* what : {"n1", "rstd1", "dn1"}) t_.end(n(what));
}

void StepProgram::embed_backward() {
  t_.tick();
  if (config_.model.residual_lambdas) t_.end("dx0");
  t_.tick();
}

}  // namespace assay
