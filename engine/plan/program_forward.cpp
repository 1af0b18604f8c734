#include "engine/plan/step_program.h"

namespace assay {

void StepProgram::embed() {
  t_.tick();
  t_.begin("x", act(s_.tokens * s_.d));
  t_.begin("embed_rstd", stat(s_.tokens));
  t_.begin("x0", act(s_.tokens * s_.d));
}

void StepProgram::attention_forward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  t_.begin(n("n1"), act(s_.tokens * s_.d));
  t_.begin(n("rstd1"), stat(s_.tokens));
  if (s_.dense_fp8) begin_fp8(n("n1_8"), s_.tokens, s_.d);
  if (i > 0) end_expert_sum(i - 1);
  t_.tick();
  t_.begin(n("qkv"), act(s_.tokens * 3 * s_.d));
  t_.begin(n("qk_rstd"), stat(s_.tokens * 2 * s_.heads));  // the product may rotate and norm: project_qkv
  if (s_.dense_fp8) end_fp8(n("n1_8"));
  t_.tick();
  t_.begin(n("attention"), act(s_.tokens * s_.d));
  t_.begin(n("lse"), stat(s_.batch * s_.heads * s_.T));
  t_.tick();
  if (s_.dense_fp8) begin_fp8(n("attention_8"), s_.tokens, s_.d);
  t_.tick();
  if (s_.dense_fp8) end_fp8(n("attention_8"));
}

void StepProgram::moe_forward(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  route(i);
  up(shared(i));
  if (s_.dense_fp8 && !s_.routed_fp8) end_n2_codes(i);
  down(shared(i));
  t_.tick();
  if (s_.routed_fp8) {
    begin_fp8(n("xg_8"), s_.routed_rows, s_.d);
    end_n2_codes(i);
  } else {
    t_.begin(n("xg"), act(s_.routed_rows * s_.d));
  }
  up(routed(i));
  if (s_.routed_fp8)
    end_fp8(n("xg_8"));
  else
    t_.end(n("xg"));
  down(routed(i));
}

// Their scale is read once more, when the routed rows are gathered for an FP8 weight gradient.
void StepProgram::end_n2_codes(int64_t i) {
  t_.end(layer_name(i, "n2_8.codes"));
  if (!s_.wgrad_fp8) t_.end(layer_name(i, "n2_8.scales"));
}

// Read by the norm that follows the block.
void StepProgram::end_expert_sum(int64_t i) {
  t_.end(layer_name(i, "y"));
  t_.end(layer_name(i, "y_shared"));
}

void StepProgram::up(const FeedForward& f) {
  t_.tick();
  if (f.fp8 && s_.fused_fp8) {
    begin_fp8(f.name("hidden", "_8"), f.rows, s_.h);
    begin_fp8(f.name("hidden", "_8t"), s_.h, f.rows);
  } else {
    t_.begin(f.name("hidden"), act(f.rows * s_.h));
  }
}

void StepProgram::down(const FeedForward& f) {
  const bool separate = f.fp8 && !s_.fused_fp8;
  if (separate) {
    t_.tick();
    begin_fp8(f.name("hidden", "_8"), f.rows, s_.h);
  }
  t_.tick();
  t_.begin(f.name("y"), act(f.rows * s_.d));
  if (separate) end_fp8(f.name("hidden", "_8"));
}

void StepProgram::route(int64_t i) {
  const auto n = [&](const char* what) { return layer_name(i, what); };
  t_.tick();
  t_.begin(n("n2"), act(s_.tokens * s_.d));
  t_.begin(n("rstd2"), stat(s_.tokens));
  if (s_.dense_fp8) begin_fp8(n("n2_8"), s_.tokens, s_.d);
  t_.begin(n("picks"), ints(s_.tokens * s_.top_k));
  t_.begin(n("probs"), stat(s_.tokens * s_.top_k));
  t_.begin(n("weights"), stat(s_.tokens * s_.top_k));
  t_.tick();
  t_.begin(n("groups"), ints(2 * s_.experts));
  t_.begin(n("slot"), ints(s_.tokens * s_.top_k));
  t_.begin(n("token_of"), ints(s_.routed_rows));
  t_.begin(n("gate_of"), stat(s_.routed_rows));
}

// The output layer runs forward and backward chunk by chunk: logits never exist as a whole.
void StepProgram::head() {
  t_.tick();
  t_.begin("nf", act(s_.tokens * s_.d));
  t_.begin("rstdf", stat(s_.tokens));
  t_.end("x");
  end_expert_sum(s_.layers - 1);
  t_.tick();
  t_.begin("row_loss", stat(s_.tokens));
  t_.begin("dnf", act(s_.tokens * s_.d));
  t_.begin("logits", act(s_.logits_rows * s_.vocab));
  if (s_.head_fp8) {
    begin_fp8("nf_8", s_.logits_rows, s_.d);
    begin_fp8("dlogits_8", s_.logits_rows, s_.vocab);
    if (s_.wgrad_fp8) {
      begin_fp8("nf_8t", s_.d, s_.logits_rows);
      begin_fp8("dlogits_8t", s_.vocab, s_.logits_rows);
    }
  }
  t_.tick();
  t_.end("logits");
  if (s_.head_fp8) {
    end_fp8("nf_8");
    end_fp8("dlogits_8");
    if (s_.wgrad_fp8) {
      end_fp8("nf_8t");
      end_fp8("dlogits_8t");
    }
  }
  t_.tick();
  t_.end("row_loss");
  t_.begin("dx", act(s_.tokens * s_.d));
  if (s_.codes_from_producers) begin_gradient_codes(layer_name(s_.layers - 1, "dmoe"), s_.d);
  t_.end("nf");
  t_.end("rstdf");
  t_.end("dnf");
  t_.tick();
  if (config_.model.residual_lambdas) t_.begin("dx0", act(s_.tokens * s_.d));
}

}  // namespace assay
