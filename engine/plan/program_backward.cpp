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
  shared_backward(i);
  routed_backward(i);
  t_.tick();
  t_.begin(n("dn2"), act(s_.tokens * s_.d));
  t_.tick();
  t_.end(n("dxg"));
  t_.end(n("dn_shared"));
  t_.begin(n("dweights"), stat(s_.tokens * s_.top_k));
  t_.tick();
  for (const char* what : {"gate_grad", "dweights", "picks", "probs", "weights", "slot"}) t_.end(n(what));
  t_.tick();
  for (const char* what : {"n2", "rstd2", "dn2"}) t_.end(n(what));
}

void StepProgram::shared_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  t_.begin(n("du_shared"), act(s_.tokens * s_.h));
  if (s_.wgrad_fp8) wgrad_operands(n("w2_shared"), s_.tokens, s_.d, s_.h);
  t_.tick();
  t_.begin(n("dz_shared"), act(s_.tokens * s_.h));
  t_.end(n("du_shared"));
  t_.end(n("h_shared"));
  t_.tick();
  if (s_.dense_fp8) begin_fp8(n("dz_shared_8"), s_.tokens, s_.h);
  if (s_.wgrad_fp8) wgrad_operands(n("w1_shared"), s_.tokens, s_.h, s_.d);
  t_.begin(n("dn_shared"), act(s_.tokens * s_.d));
  t_.tick();
  if (s_.dense_fp8) end_fp8(n("dz_shared_8"));
  t_.end(n("dz_shared"));
}

void StepProgram::routed_backward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  const bool fp8 = s_.routed_fp8, fp8_wgrad = fp8 && s_.wgrad_fp8;
  t_.tick();
  if (!fp8_wgrad) t_.begin(n("dyg"), act(s_.routed_rows * s_.d));
  if (fp8) begin_fp8(n("dyg_8"), s_.routed_rows, s_.d);
  t_.tick();
  if (s_.dense_fp8) end_fp8(n("dmoe_8"));
  if (s_.eager) t_.begin(n("du"), act(s_.routed_rows * s_.h));
  t_.begin(n("dz"), act(s_.routed_rows * s_.h));
  t_.begin(n("gate_grad"), stat(s_.routed_rows));
  t_.tick();
  if (s_.eager) t_.end(n("du"));
  if (fp8_wgrad) begin_fp8(n("gated_8"), s_.routed_rows, s_.h);
  t_.tick();
  if (!fp8_wgrad) t_.end(n("dyg"));
  if (fp8) end_fp8(n("dyg_8"));
  if (fp8_wgrad) end_fp8(n("gated_8"));
  t_.end(n("hidden"));
  t_.tick();
  if (fp8) begin_fp8(n("dz_8"), s_.routed_rows, s_.h);
  if (fp8_wgrad) {
    begin_fp8(n("n2_again_8"), s_.tokens, s_.d);
    begin_fp8(n("xg_again_8"), s_.routed_rows, s_.d);
  } else {
    t_.begin(n("xg_again"), act(s_.routed_rows * s_.d));
  }
  t_.tick();
  if (fp8_wgrad) {
    end_fp8(n("n2_again_8"));
    end_fp8(n("xg_again_8"));
  } else {
    t_.end(n("xg_again"));
  }
  t_.tick();
  t_.begin(n("dxg"), act(s_.routed_rows * s_.d));
  if (fp8) end_fp8(n("dz_8"));
  for (const char* what : {"dz", "start", "rows", "token_of", "gate_of"}) t_.end(n(what));
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
