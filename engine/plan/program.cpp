#include "engine/plan/program.h"

#include "engine/plan/parameters.h"

namespace assay {
namespace {

class Program {
 public:
  Program(const RunConfig& config, const ModelShape& shape) : config_(config), s_(shape) {}

  std::vector<PlannedBuffer> describe() {
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

 private:
  static size_t count(int64_t elements, size_t bytes) { return static_cast<size_t>(elements) * bytes; }
  size_t act(int64_t elements) const { return count(elements, s_.activation_bytes); }
  size_t stat(int64_t elements) const { return count(elements, s_.master_bytes); }
  size_t ints(int64_t elements) const { return count(elements, 4); }

  void begin_fp8(const std::string& name, Fp8Operand operand, int64_t groups, int64_t rows, int64_t cols) {
    t_.begin(name + ".codes", count(groups * rows * cols, 1));
    t_.begin(name + ".scales", count(scale_count(s_.recipe, operand, groups, rows, cols), 4));
  }
  void begin_fp8(const std::string& name, int64_t rows, int64_t cols) {
    begin_fp8(name, Fp8Operand::activation, 1, rows, cols);
  }
  void end_fp8(const std::string& name) {
    t_.end(name + ".codes");
    t_.end(name + ".scales");
  }
  // Both operands of an FP8 weight gradient: quantised, and transposed so that their rows are the summed dimension.
  void wgrad_operands(const std::string& prefix, int64_t rows, int64_t dy_cols, int64_t x_cols) {
    t_.tick();
    begin_fp8(prefix + "_dy8", rows, dy_cols);
    begin_fp8(prefix + "_dy8t", dy_cols, rows);
    begin_fp8(prefix + "_x8", rows, x_cols);
    begin_fp8(prefix + "_x8t", x_cols, rows);
    t_.tick();
    for (const char* what : {"_dy8", "_dy8t", "_x8", "_x8t"}) end_fp8(prefix + what);
  }

  void parameters() {
    for (const ParameterSpec& p : list_parameters(config_)) {
      t_.keep("param." + p.name, stat(p.numel()));
      t_.keep("grad." + p.name, stat(p.numel()));
      t_.keep("moment1." + p.name, stat(p.numel()));
      t_.keep("moment2." + p.name, stat(second_moment_count(p)));
    }
  }

  void state() {
    t_.keep("cos", stat(s_.T * s_.head_dim / 2));
    t_.keep("sin", stat(s_.T * s_.head_dim / 2));
    t_.keep("router_bias", ints(s_.layers * s_.experts));
    t_.keep("router_total", ints(s_.layers * s_.experts));
    t_.keep("counts", ints(s_.layers * s_.experts));
    t_.keep("loss_sum", 8);
    t_.keep("square_sums", count(static_cast<int64_t>(list_parameters(config_).size()), 8));
    if (!s_.dense_fp8) return;
    for (const char* name : {"fp8.scale", "fp8.amax", "fp8.format_max"}) t_.keep(name, count(fp8_slot_count(s_), 4));
    t_.keep("fp8.ignored_amax", 4);
  }

  // Cast or quantised once per step, dead once the last gradient is there.
  void compute_weights() {
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

  void embed() {
    t_.tick();
    t_.begin("x", act(s_.tokens * s_.d));
    t_.begin("embed_rstd", stat(s_.tokens));
    t_.begin("x0", act(s_.tokens * s_.d));
  }

  void attention_forward(int64_t i) {
    const auto n = [&](const char* what) { return layer_name(i, what); };
    t_.tick();
    t_.begin(n("n1"), act(s_.tokens * s_.d));
    t_.begin(n("rstd1"), stat(s_.tokens));
    if (s_.dense_fp8) begin_fp8(n("n1_8"), s_.tokens, s_.d);
    t_.tick();
    t_.begin(n("qkv"), act(s_.tokens * 3 * s_.d));
    if (s_.dense_fp8) end_fp8(n("n1_8"));
    t_.tick();
    t_.begin(n("qk_rstd"), stat(s_.tokens * 2 * s_.heads));
    t_.tick();
    t_.begin(n("attention"), act(s_.tokens * s_.d));
    t_.begin(n("lse"), stat(s_.batch * s_.heads * s_.T));
    t_.tick();
    if (s_.dense_fp8) begin_fp8(n("attention_8"), s_.tokens, s_.d);
    t_.tick();
    if (s_.dense_fp8) end_fp8(n("attention_8"));
  }

  void moe_forward(int64_t i) {
    const auto n = [&](const char* what) { return layer_name(i, what); };
    route(i);
    t_.tick();
    t_.begin(n("h_shared"), act(s_.tokens * s_.h));
    t_.tick();
    t_.begin(n("y_shared"), act(s_.tokens * s_.d));
    if (s_.dense_fp8) begin_fp8(n("h_shared_8"), s_.tokens, s_.h);
    t_.tick();
    if (s_.dense_fp8) end_fp8(n("h_shared_8"));
    if (s_.routed_fp8)
      begin_fp8(n("xg_8"), s_.routed_rows, s_.d);
    else
      t_.begin(n("xg"), act(s_.routed_rows * s_.d));
    t_.tick();
    if (s_.dense_fp8) end_fp8(n("n2_8"));
    t_.begin(n("hidden"), act(s_.routed_rows * s_.h));
    if (s_.routed_fp8)
      end_fp8(n("xg_8"));
    else
      t_.end(n("xg"));
    t_.tick();
    if (s_.routed_fp8) begin_fp8(n("hidden_8"), s_.routed_rows, s_.h);
    t_.tick();
    t_.begin(n("y"), act(s_.routed_rows * s_.d));
    if (s_.routed_fp8) end_fp8(n("hidden_8"));
    t_.tick();
    t_.end(n("y"));
    t_.end(n("y_shared"));
  }

  void route(int64_t i) {
    const auto n = [&](const char* what) { return layer_name(i, what); };
    t_.tick();
    t_.begin(n("n2"), act(s_.tokens * s_.d));
    t_.begin(n("rstd2"), stat(s_.tokens));
    if (s_.dense_fp8) begin_fp8(n("n2_8"), s_.tokens, s_.d);
    t_.begin(n("picks"), ints(s_.tokens * s_.top_k));
    t_.begin(n("probs"), stat(s_.tokens * s_.top_k));
    t_.begin(n("weights"), stat(s_.tokens * s_.top_k));
    t_.tick();
    t_.begin(n("start"), ints(s_.experts));
    t_.begin(n("rows"), ints(s_.experts));
    t_.begin(n("slot"), ints(s_.tokens * s_.top_k));
    t_.begin(n("token_of"), ints(s_.routed_rows));
    t_.begin(n("gate_of"), stat(s_.routed_rows));
  }

  // The output layer runs forward and backward chunk by chunk: logits never exist as a whole.
  void head() {
    t_.tick();
    t_.begin("nf", act(s_.tokens * s_.d));
    t_.begin("rstdf", stat(s_.tokens));
    t_.end("x");
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
    if (config_.model.residual_lambdas) t_.begin("dx0", act(s_.tokens * s_.d));
    t_.end("nf");
    t_.end("rstdf");
    t_.end("dnf");
  }

  void moe_backward(int64_t i) {
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

  void shared_backward(int64_t i) {
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

  void routed_backward(int64_t i) {
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

  void attention_backward(int64_t i) {
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

  void embed_backward() {
    t_.tick();
    if (config_.model.residual_lambdas) t_.end("dx0");
    t_.tick();
  }

  const RunConfig& config_;
  const ModelShape& s_;
  Timeline t_;
};

}  // namespace

std::vector<PlannedBuffer> describe_step(const RunConfig& config, const ModelShape& shape) {
  return Program(config, shape).describe();
}

}  // namespace assay
