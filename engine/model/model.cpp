#include "engine/model/model.h"

#include <cmath>
#include <cstring>

#include "engine/ops/error.h"
#include "engine/ops/lowp.h"

namespace assay {
namespace {

// Head-room of a delayed scale over the last step's amax. A power of two costs one of FP8's exponents and no mantissa.
constexpr float fp8_margin = 2.0f;
// Steps in which delayed scales may not exist yet: see Model::warming_up.
constexpr int64_t fp8_calibration_steps = 3;

DType master_dtype(const ModelShape& s) {
  return s.master_bytes == 8 ? DType::f64 : DType::f32;
}
DType activation_dtype(const ModelShape& s) {
  return s.activation_bytes == 8 ? DType::f64 : s.activation_bytes == 4 ? DType::f32 : DType::bf16;
}

}  // namespace

Model::Model(const RunConfig& config, const RunPlan& plan, Ops& ops, void* memory)
    : config_(config),
      shape_(plan.shape),
      ops_(ops),
      arena_(memory, plan.buffers),
      weights_(config, shape_, arena_),
      context_{config_, shape_, ops_, arena_, weights_, activation_dtype(shape_), master_dtype(shape_)} {
  Context& c = context_;
  const int64_t N = shape_.tokens, d = shape_.d, experts = shape_.experts, layers = shape_.layers;
  c.tokens = arena_.take("tokens", DType::i32, {N});
  c.cos = arena_.take("cos", c.master, {shape_.T, shape_.head_dim / 2});
  c.sin = arena_.take("sin", c.master, {shape_.T, shape_.head_dim / 2});
  targets_ = arena_.take("targets", DType::i32, {N});
  x_ = arena_.take("x", c.act, {N, d});
  dx_ = arena_.take("dx", c.act, {N, d});
  x0_ = arena_.take("x0", c.act, {N, d});
  if (config.model.residual_lambdas) dx0_ = arena_.take("dx0", c.act, {N, d});
  embed_rstd_ = arena_.take("embed_rstd", c.master, {N});
  router_bias_ = arena_.take("router_bias", DType::f32, {layers, experts});
  router_total_ = arena_.take("router_total", DType::i32, {layers, experts});
  router_peak_ = arena_.take("router_peak", DType::i32, {layers, experts});
  counts_ = arena_.take("counts", DType::i32, {layers, experts});
  loss_sum_ = arena_.take("loss_sum", DType::f64, {1});
  square_sums_ = arena_.take("square_sums", DType::f64, {static_cast<int64_t>(weights_.all().size())});
  verdict_ = arena_.take("verdict", DType::i32, {1});
  readback_ = make_readback();
  if (shape_.dense_fp8) {
    const int64_t slots = fp8_slot_count(shape_);
    c.fp8_scale = arena_.take("fp8.scale", DType::f32, {slots});
    c.fp8_amax = arena_.take("fp8.amax", DType::f32, {slots});
    fp8_format_max_ = arena_.take("fp8.format_max", DType::f32, {slots});
    c.ignored_amax = arena_.take("fp8.ignored_amax", DType::f32, {1});
  }
  load_tables();
  forgive();
  for (int64_t i = 0; i < layers; ++i) {
    attention_.push_back(std::make_unique<AttentionBlock>(c, i));
    moe_.push_back(std::make_unique<MoeBlock>(c, i));
  }
  head_ = std::make_unique<Head>(c);
}

// Rotation tables and the FP8 formats of the slots: constants, made on the host.
void Model::load_tables() {
  const Context& c = context_;
  std::vector<char> cos(c.cos.bytes()), sin(c.sin.bytes());
  Tensor host_cos = c.cos, host_sin = c.sin;
  host_cos.data = cos.data();
  host_sin.data = sin.data();
  rope_table(config_.model.rope_base, host_cos, host_sin);
  ops_.copy_to_device(c.cos.data, cos.data(), cos.size());
  ops_.copy_to_device(c.sin.data, sin.data(), sin.size());
  if (!fp8_format_max_) return;
  std::vector<float> format_max(static_cast<size_t>(fp8_format_max_.numel()), fp8_max(c.grad_format()));
  for (int64_t layer = 0; layer < shape_.layers; ++layer)
    for (int slot = 0; slot < static_cast<int>(Fp8Slot::count); ++slot)
      if (!is_gradient(static_cast<Fp8Slot>(slot)))
        format_max[static_cast<size_t>(fp8_slot(static_cast<Fp8Slot>(slot), layer))] = e4m3_max;
  ops_.copy_to_device(fp8_format_max_.data, format_max.data(), fp8_format_max_.bytes());
}

void Model::initialise(int64_t seed) {
  weights_.initialise(seed, ops_);
  ops_.fill_zero({router_bias_});
  if (!context_.fp8_scale) return;
  ops_.fill_zero({context_.fp8_scale});
  ops_.fill_zero({context_.fp8_amax});
}

void Model::begin_step() {
  ++steps_begun_;
  context_.accumulating = false;
  weights_.prepare(ops_);
  weights_.zero_grads(ops_);
  for (const Tensor* t : {&loss_sum_, &router_total_, &router_peak_}) ops_.fill_zero({*t});
}

// Not to be recorded: on a backend's first pass libraries load and set themselves up, and in FP8 some delayed scales do
// not exist yet. A gradient that is zero in the first step, because an output matrix begins as zero, has an amax after
// the second.
bool Model::warming_up() const {
  return micro_steps_ == 0 || (context_.fp8_scale && steps_begun_ <= fp8_calibration_steps);
}

void Model::load_batch(const int32_t* tokens, const int32_t* targets) {
  ops_.copy_to_device(context_.tokens.data, tokens, context_.tokens.bytes());
  ops_.copy_to_device(targets_.data, targets, targets_.bytes());
}

void Model::forward(double grad_scale) {
  const Context& c = context_;
  const Tensor table = weights_.at("wte").master.view({shape_.vocab, shape_.d});
  ops_.embed_norm({.tokens = c.tokens, .table = table, .x = x0_, .rstd = embed_rstd_});
  c.saw("x0", x0_);
  ops_.cast({.x = x0_, .dst = x_});
  const Tensor skip = dx0_ ? x0_ : Tensor{};
  ExpertSum pending;
  for (size_t i = 0; i < attention_.size(); ++i) {
    attention_[i]->forward(x_, skip, pending);
    pending = moe_[i]->forward(x_);
  }
  head_->forward(x_, pending, targets_, grad_scale);
}

void Model::backward() {
  const Context& c = context_;
  head_->backward(dx_, moe_.back()->incoming());
  if (dx0_) ops_.fill_zero({dx0_});
  for (size_t i = attention_.size(); i-- > 0;) {
    moe_[i]->backward(dx_, attention_[i]->incoming());
    attention_[i]->backward(dx_, dx0_ ? x0_ : Tensor{}, dx0_, i > 0 ? moe_[i - 1]->incoming() : GradientCodes{});
  }
  if (dx0_) ops_.add({.x = dx0_, .y = dx_});
  const Tensor grad = weights_.at("wte").grad.view({shape_.vocab, shape_.d});
  ops_.embed_norm_grad({.tokens = c.tokens, .x = x0_, .rstd = embed_rstd_, .dx = dx_, .table_grad = grad});
}

void Model::micro_step(const int32_t* tokens, const int32_t* targets, double grad_scale) {
  load_batch(tokens, targets);
  context_.calibrating = warming_up();
  const auto work = [&] {
    forward(grad_scale);
    backward();
    ops_.expert_load({.counts = counts_, .total = router_total_, .peak = router_peak_});
  };
  if (shape_.eager || warming_up())
    work();
  else
    ops_.replay(context_.accumulating ? recording_ : first_recording_, work);
  context_.accumulating = true;
  ++micro_steps_;
}

std::optional<CapacityExceeded> Model::evaluate(const int32_t* tokens, const int32_t* targets, double* loss_sum) {
  context_.training = false;
  context_.calibrating = warming_up();
  for (const Tensor* t : {&loss_sum_, &router_peak_}) ops_.fill_zero({*t});
  load_batch(tokens, targets);
  forward(0.0);
  ops_.expert_load({.counts = counts_, .total = router_total_, .peak = router_peak_});
  context_.training = true;
  const StepResults r = results();
  *loss_sum = r.loss_sum;
  return over_capacity(r, shape_);
}

void Model::end_step() {
  ops_.fill_zero({square_sums_});
  SumSquaresArgs gradients{.out = square_sums_.as<double>()};
  for (const Weight& w : weights_.all()) gradients.x.push_back(w.grad);
  ops_.sum_squares(gradients);
  ops_.step_verdict({.loss_sum = loss_sum_,
                     .square_sums = square_sums_,
                     .peak = router_peak_,
                     .capacity = shape_.capacity,
                     .verdict = verdict_});
  const int64_t experts = shape_.experts;
  for (int64_t i = 0; i < shape_.layers; ++i)
    ops_.router_bias_update({.bias = router_bias_.slice(i, 1).view({experts}),
                             .total = router_total_.slice(i, 1).view({experts}),
                             .rate = static_cast<float>(config_.model.router_bias_rate),
                             .skip = verdict()});
  const Context& c = context_;
  if (c.fp8_scale)
    ops_.scale_update({.scale = c.fp8_scale.as<float>(),
                       .amax = c.fp8_amax.as<float>(),
                       .format_max = fp8_format_max_.as<float>(),
                       .n = c.fp8_scale.numel(),
                       .margin = fp8_margin,
                       .skip = verdict()});
}

std::unique_ptr<StepReadback> Model::make_readback() const {
  return std::make_unique<StepReadback>(ops_, shape_, square_sums_.numel());
}

void Model::read_results(StepReadback& to) {
  to.start(loss_sum_, square_sums_, router_total_, router_peak_, verdict_);
}

StepResults Model::results() {
  read_results(*readback_);
  ops_.wait(ops_.mark());
  return readback_->results();
}

double Model::square_sum(const Tensor& t) {
  const Tensor first = square_sums_.slice(0, 1);
  ops_.fill_zero({first});
  ops_.sum_squares({.x = {t}, .out = first.as<double>()});
  double sum = 0;
  ops_.copy_to_host(&sum, first.data, sizeof(sum));
  return sum;
}

std::string Model::first_non_finite(const int32_t* tokens, const int32_t* targets) {
  for (const Weight& w : weights_.all())
    if (!std::isfinite(square_sum(w.master))) return "parameter " + w.spec.name;
  std::string first;
  context_.probe = [&](const std::string& name, const Tensor& t) {
    if (first.empty() && !std::isfinite(square_sum(t))) first = "activation " + name;
  };
  double ignored = 0;
  const auto exceeded = evaluate(tokens, targets, &ignored);
  context_.probe = nullptr;
  if (first.empty() && exceeded) return {};
  return first;
}

std::vector<std::pair<std::string, Tensor>> Model::state() const {
  std::vector<std::pair<std::string, Tensor>> state = {{"router_bias", router_bias_}};
  if (!context_.fp8_scale) return state;
  state.emplace_back("fp8.scale", context_.fp8_scale);
  state.emplace_back("fp8.amax", context_.fp8_amax);
  return state;
}

}  // namespace assay
