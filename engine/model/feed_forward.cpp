#include "engine/model/feed_forward.h"

namespace assay {
namespace {

// One matrix is a stack of one.
Tensor stack(const Tensor& w) {
  return w.rank == 3 ? w : w.view({1, w.dim(0), w.dim(1)});
}

Quantized stack(const Quantized& w) {
  if (w.codes.rank == 3) return w;
  const Tensor& s = w.scales;
  return {stack(w.codes), s.rank == 1 ? s.view({1, s.dim(0)}) : stack(s), w.mode};
}

}  // namespace

std::unique_ptr<FeedForward> FeedForward::make(const Context& c, int64_t layer, const FeedForwardSpec& spec) {
  if (c.shape.eager) return std::make_unique<LoopedFeedForward>(c, layer, spec);
  return std::make_unique<GroupedFeedForward>(c, layer, spec);
}

FeedForward::FeedForward(const Context& c, int64_t layer, const FeedForwardSpec& spec)
    : c_(c), layer_(layer), spec_(spec) {
  hidden_ = take("hidden", DType::fp8_e4m3);
  dz_ = take("dz", c.grad_format());
  has_gaps_ = c.shape.has_gaps && spec.groups;
}

// A matrix [rows, h] that a product writes and others read.
Operand FeedForward::take(const char* what, DType format) const {
  const ModelShape& s = c_.shape;
  const std::string name = layer_name(layer_, what) + spec_.suffix;
  const bool fp8 = static_cast<bool>(spec_.w1->w8);
  Operand o;
  if (!(fp8 && s.fused_fp8)) o.plain = c_.take(name, c_.act, {spec_.rows, s.h});
  if (fp8) o.fp8 = c_.fp8(name + "_8", format, spec_.rows, s.h);
  if (fp8 && s.wgrad_fp8) o.fp8t = c_.fp8(name + "_8t", format, s.h, spec_.rows);
  return o;
}

Groups FeedForward::groups() const {
  if (!spec_.groups) return {.count = 1};
  const auto* start = spec_.groups.as<int32_t>();
  const int64_t count = spec_.groups.dim(1);
  return {start, start + count, static_cast<int>(count)};
}

// No product writes the rows between the groups, but one scale for all rows is made from them too, and a probe sees
// them.
void FeedForward::fill_gaps(const Tensor& out, const Quantized& quantised) const {
  const bool one_scale = quantised && quantised.mode == ScaleMode::tensorwise;
  if (has_gaps_ && out && (one_scale || c_.probe)) c_.ops.fill_zero({out});
}

void FeedForward::forward(const Operand& x, const Tensor& y) {
  begin();
  fill_gaps(hidden_.plain, hidden_.fp8);
  fill_gaps(y, {});
  up(x);
  if (hidden_.plain) c_.saw(layer_name(layer_, "hidden") + spec_.suffix, hidden_.plain);
  if (hidden_.plain && hidden_.fp8) quantize(c_, hidden_.plain, delayed_range(spec_.hidden, layer_), hidden_.fp8);
  down(y);
  c_.saw(layer_name(layer_, "y") + spec_.suffix, y);
}

void FeedForward::backward_down(const Operand& dy) {
  // The weight gradient first: in FP8 what it reads is gone before dz comes.
  if (hidden_.plain && hidden_.fp8t) quantize(c_, hidden_.plain, delayed_range(spec_.hidden, layer_), {}, hidden_.fp8t);
  weight_grad(*spec_.w2, dy, hidden_);
  fill_gaps(dz_.plain, dz_.fp8);
  down_grad(dy);
  if (dz_.fp8t) encode_dz();
}

void FeedForward::backward_input(const Tensor& dx) {
  if (!dz_.fp8t) encode_dz();  // late: it need not be there beside what the weight gradient reads
  up_grad(dx);
}

void FeedForward::encode_dz() {
  if (dz_.plain && dz_.fp8) quantize(c_, dz_.plain, delayed_range(spec_.grad, layer_), dz_.fp8, dz_.fp8t);
}

// ---------------------------------------------------------------------------------------------------------- grouped

// The operands of x W^T or, backward, x W.
GroupedGemmArgs GroupedFeedForward::product(const Operand& x, const Weight& w, bool backward) const {
  if (w.w8) return {.groups = groups(), .x8 = x.fp8, .w8 = stack(backward ? w.w8t : w.w8)};
  return {.groups = groups(), .x = x.plain, .w = stack(w.compute), .transpose_w = backward};
}

void GroupedFeedForward::write_to(const Operand& out, Fp8Slot slot, GroupedGemmArgs* args) const {
  if (out.plain) {
    args->out = out.plain;
    return;
  }
  args->out8 = out.fp8;
  args->out8t = out.fp8t;
  args->out8_scale = c_.delayed_scale(fp8_slot(slot, layer_));
  args->calibrate = c_.calibrating;
}

void GroupedFeedForward::up(const Operand& x) {
  GroupedGemmArgs args = product(x, *spec_.w1, false);
  args.epilogue = GroupedEpilogue::relu2;
  write_to(hidden_, spec_.hidden, &args);
  c_.ops.grouped_gemm(args);
}

void GroupedFeedForward::down(const Tensor& y) {
  GroupedGemmArgs args = product(hidden_, *spec_.w2, false);
  args.out = y;
  c_.ops.grouped_gemm(args);
}

void GroupedFeedForward::down_grad(const Operand& dy) {
  GroupedGemmArgs args = product(dy, *spec_.w2, true);
  args.epilogue = GroupedEpilogue::relu2_grad;
  write_to(dz_, spec_.grad, &args);
  if (hidden_.plain)
    args.hidden = hidden_.plain;
  else
    args.hidden8 = hidden_.fp8;
  args.gate = spec_.gate;
  args.gate_grad = spec_.gate_grad;
  c_.ops.grouped_gemm(args);
}

void GroupedFeedForward::up_grad(const Tensor& dx) {
  GroupedGemmArgs args = product(dz_, *spec_.w1, true);
  args.out = dx;
  c_.ops.grouped_gemm(args);
}

void GroupedFeedForward::weight_grad(const Weight& w, const Operand& dy, const Operand& x) {
  GroupedWgradArgs args{.groups = groups(), .dw = stack(w.product_grad), .accumulate = c_.accumulating};
  if (x.fp8t) {
    args.dy8t = dy.fp8t;
    args.x8t = x.fp8t;
  } else {
    args.dy = dy.plain;
    args.x = x.plain;
  }
  c_.ops.grouped_wgrad(args);
}

// ----------------------------------------------------------------------------------------------------------- looped

namespace {

// Matrix `group` of a stack.
Tensor matrix(const Tensor& w, int64_t group) {
  const Tensor all = stack(w);
  return all.slice(group, 1).view({all.dim(1), all.dim(2)});
}

Tensor part(const Tensor& t, int64_t first, int64_t count) {
  return t ? t.slice(first, count) : Tensor{};
}

}  // namespace

LoopedFeedForward::LoopedFeedForward(const Context& c, int64_t layer, const FeedForwardSpec& spec)
    : FeedForward(c, layer, spec), du_(c.take(layer_name(layer, "du") + spec.suffix, c.act, {spec.rows, c.shape.h})) {}

void LoopedFeedForward::begin() {
  ranges_.clear();
  if (!spec_.groups) {
    ranges_.push_back({0, 0, spec_.rows});
    return;
  }
  const auto count = static_cast<size_t>(spec_.groups.dim(1));
  std::vector<int32_t> groups(2 * count);
  c_.ops.copy_to_host(groups.data(), spec_.groups.data, spec_.groups.bytes());
  for (size_t g = 0; g < count; ++g)
    if (groups[count + g] > 0) ranges_.push_back({static_cast<int64_t>(g), groups[g], groups[count + g]});
}

// out = x W^T or, backward, x W of one group's rows.
void LoopedFeedForward::product(const Operand& x, const Weight& w, bool backward, const Range& r,
                                const Tensor& out) const {
  const Tensor to = out.slice(r.first, r.count);
  if (w.w8)
    c_.ops.gemm_fp8(
        {.a = row_slice(x.fp8, r.first, r.count), .b = stack(backward ? w.w8t : w.w8).slice(r.group), .out = to});
  else
    c_.ops.gemm(
        {.a = x.plain.slice(r.first, r.count), .b = matrix(w.compute, r.group), .transpose_b = !backward, .out = to});
}

void LoopedFeedForward::up(const Operand& x) {
  for (const Range& r : ranges_) {
    product(x, *spec_.w1, false, r, hidden_.plain);
    const Tensor hidden = hidden_.plain.slice(r.first, r.count);
    c_.ops.relu2({.z = hidden, .h = hidden});
  }
}

void LoopedFeedForward::down(const Tensor& y) {
  for (const Range& r : ranges_) product(hidden_, *spec_.w2, false, r, y);
}

void LoopedFeedForward::down_grad(const Operand& dy) {
  for (const Range& r : ranges_) {
    product(dy, *spec_.w2, true, r, du_);
    c_.ops.relu2_grad({.du = du_.slice(r.first, r.count),
                       .h = hidden_.plain.slice(r.first, r.count),
                       .dz = dz_.plain.slice(r.first, r.count),
                       .gate = part(spec_.gate, r.first, r.count),
                       .gate_grad = part(spec_.gate_grad, r.first, r.count)});
  }
}

void LoopedFeedForward::up_grad(const Tensor& dx) {
  for (const Range& r : ranges_) product(dz_, *spec_.w1, true, r, dx);
}

void LoopedFeedForward::weight_grad(const Weight& w, const Operand& dy, const Operand& x) {
  if (!c_.accumulating) c_.ops.fill_zero({w.grad});  // no product writes the gradient of a group without rows
  for (const Range& r : ranges_) {
    if (x.fp8t) {  // columns of a wider matrix, which a dense product does not take: a group of its own
      Groups one = groups();
      if (one.start != nullptr) one = {one.start + r.group, one.rows + r.group, 1};
      const Tensor dw = stack(w.product_grad).slice(r.group, 1);
      c_.ops.grouped_wgrad({.groups = one, .dy8t = dy.fp8t, .x8t = x.fp8t, .dw = dw});
    } else {
      c_.ops.gemm({.a = dy.plain.slice(r.first, r.count),
                   .b = x.plain.slice(r.first, r.count),
                   .transpose_a = true,
                   .transpose_b = false,
                   .out = matrix(w.product_grad, r.group),
                   .accumulate = true});
    }
  }
}

}  // namespace assay
