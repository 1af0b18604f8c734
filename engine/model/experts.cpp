#include "engine/model/experts.h"

namespace assay {

void Experts::forward() {
  begin();
  c_.ops.permute({.token_of = b_.token_of, .x = b_.xg ? b_.n : Tensor{}, .out = b_.xg, .x8 = b_.n8, .out8 = b_.xg8});
  up();
  c_.saw(layer_, "hidden", b_.hidden);
  if (b_.hidden8) quantize(c_, b_.hidden, range(Fp8Slot::hidden), b_.hidden8);
  down();
  c_.saw(layer_, "y", b_.y);
}

void Experts::backward(const Tensor& dy, const Quantized& dy8) {
  c_.ops.permute({.token_of = b_.token_of,
                  .x = b_.dyg ? dy : Tensor{},
                  .out = b_.dyg,
                  .x8 = b_.dyg8 ? dy8 : Quantized{},
                  .out8 = b_.dyg8});
  down_grad();
  if (b_.gated8) quantize(c_, b_.hidden, range(Fp8Slot::gated_hidden), b_.gated8);
  weight_grad(*b_.w2, b_.dyg, b_.dyg8, b_.hidden, b_.gated8);
  // The experts' inputs are gathered again: keeping them would cost k rows per token and layer.
  if (b_.n_again8) quantize(c_, b_.n, norm_range(c_.shape), b_.n_again8);
  c_.ops.permute({.token_of = b_.token_of,
                  .x = b_.xg_again ? b_.n : Tensor{},
                  .out = b_.xg_again,
                  .x8 = b_.n_again8,
                  .out8 = b_.xg_again8});
  if (b_.dz8) quantize(c_, b_.dz, range(Fp8Slot::routed_grad), b_.dz8);
  weight_grad(*b_.w1, b_.dz, b_.dz8, b_.xg_again, b_.xg_again8);
  up_grad();
}

// ---------------------------------------------------------------------------------------------------------- grouped

Groups GroupedExperts::groups() const {
  return {b_.start.as<int32_t>(), b_.rows.as<int32_t>(), static_cast<int>(c_.shape.experts)};
}

void GroupedExperts::up() {
  GroupedGemmArgs args{.groups = groups(), .out = b_.hidden, .epilogue = GroupedEpilogue::relu2};
  if (b_.xg8) {
    args.x8 = b_.xg8;
    args.w8 = b_.w1->w8;
  } else {
    args.x = b_.xg;
    args.w = b_.w1->compute;
  }
  c_.ops.grouped_gemm(args);
}

void GroupedExperts::down() {
  GroupedGemmArgs args{.groups = groups(), .out = b_.y};
  if (b_.hidden8) {
    args.x8 = b_.hidden8;
    args.w8 = b_.w2->w8;
  } else {
    args.x = b_.hidden;
    args.w = b_.w2->compute;
  }
  c_.ops.grouped_gemm(args);
}

void GroupedExperts::down_grad() {
  GroupedGemmArgs args{.groups = groups(),
                       .transpose_w = true,
                       .out = b_.dz,
                       .epilogue = GroupedEpilogue::relu2_grad,
                       .hidden = b_.hidden,
                       .gate = b_.gate_of,
                       .gate_grad = b_.gate_grad};
  if (b_.dyg8) {
    args.transpose_w = false;
    args.x8 = b_.dyg8;
    args.w8 = b_.w2->w8t;
  } else {
    args.x = b_.dyg;
    args.w = b_.w2->compute;
  }
  c_.ops.grouped_gemm(args);
}

void GroupedExperts::up_grad() {
  GroupedGemmArgs args{.groups = groups(), .transpose_w = true, .out = b_.dxg};
  if (b_.dz8) {
    args.transpose_w = false;
    args.x8 = b_.dz8;
    args.w8 = b_.w1->w8t;
  } else {
    args.x = b_.dz;
    args.w = b_.w1->compute;
  }
  c_.ops.grouped_gemm(args);
}

void GroupedExperts::weight_grad(const Weight& w, const Tensor& dy, const Quantized& dy8, const Tensor& x,
                                 const Quantized& x8) {
  if (x8)
    c_.ops.grouped_wgrad({.groups = groups(), .dy8 = dy8, .x8 = x8, .dw = w.product_grad});
  else
    c_.ops.grouped_wgrad({.groups = groups(), .dy = dy, .x = x, .dw = w.product_grad});
}

// ----------------------------------------------------------------------------------------------------------- looped

namespace {

// Expert e of a stack [E, rows, cols], as a matrix.
Tensor matrix(const Tensor& stack, int64_t expert) {
  return stack.slice(expert, 1).view({stack.dim(1), stack.dim(2)});
}

}  // namespace

void LoopedExperts::begin() {
  std::vector<int32_t> start(static_cast<size_t>(c_.shape.experts)), rows(start.size());
  c_.ops.copy_to_host(start.data(), b_.start.data, b_.start.bytes());
  c_.ops.copy_to_host(rows.data(), b_.rows.data, b_.rows.bytes());
  ranges_.clear();
  for (size_t e = 0; e < rows.size(); ++e)
    if (rows[e] > 0) ranges_.push_back({static_cast<int64_t>(e), start[e], rows[e]});
}

void LoopedExperts::up() {
  for (const auto& [e, first, count] : ranges_) {
    const Tensor hidden = b_.hidden.slice(first, count);
    if (b_.xg8)
      c_.ops.gemm_fp8({.a = row_slice(b_.xg8, first, count), .b = b_.w1->w8.slice(e), .out = hidden});
    else
      c_.ops.gemm({.a = b_.xg.slice(first, count), .b = matrix(b_.w1->compute, e), .out = hidden});
    c_.ops.relu2({.z = hidden, .h = hidden});
  }
}

void LoopedExperts::down() {
  for (const auto& [e, first, count] : ranges_) {
    const Tensor y = b_.y.slice(first, count);
    if (b_.hidden8)
      c_.ops.gemm_fp8({.a = row_slice(b_.hidden8, first, count), .b = b_.w2->w8.slice(e), .out = y});
    else
      c_.ops.gemm({.a = b_.hidden.slice(first, count), .b = matrix(b_.w2->compute, e), .out = y});
  }
}

void LoopedExperts::down_grad() {
  for (const auto& [e, first, count] : ranges_) {
    const Tensor du = b_.du.slice(first, count);
    if (b_.dyg8)
      c_.ops.gemm_fp8({.a = row_slice(b_.dyg8, first, count), .b = b_.w2->w8t.slice(e), .out = du});
    else
      c_.ops.gemm({.a = b_.dyg.slice(first, count), .b = matrix(b_.w2->compute, e), .transpose_b = false, .out = du});
    c_.ops.relu2_grad({.du = du,
                       .h = b_.hidden.slice(first, count),
                       .dz = b_.dz.slice(first, count),
                       .gate = b_.gate_of.slice(first, count),
                       .gate_grad = b_.gate_grad.slice(first, count)});
  }
}

void LoopedExperts::up_grad() {
  for (const auto& [e, first, count] : ranges_) {
    const Tensor dxg = b_.dxg.slice(first, count);
    if (b_.dz8)
      c_.ops.gemm_fp8({.a = row_slice(b_.dz8, first, count), .b = b_.w1->w8t.slice(e), .out = dxg});
    else
      c_.ops.gemm({.a = b_.dz.slice(first, count), .b = matrix(b_.w1->compute, e), .transpose_b = false, .out = dxg});
  }
}

void LoopedExperts::weight_grad(const Weight& w, const Tensor& dy, const Quantized& dy8, const Tensor& x,
                                const Quantized& x8) {
  for (const auto& [e, first, count] : ranges_) {
    const Tensor dw = matrix(w.product_grad, e);
    if (x8) {  // dense FP8 products want the summed dimension innermost, which row ranges of codes are not: one group
      const Groups group{b_.start.as<int32_t>() + e, b_.rows.as<int32_t>() + e, 1};
      c_.ops.grouped_wgrad({.groups = group, .dy8 = dy8, .x8 = x8, .dw = w.product_grad.slice(e, 1)});
    } else {
      c_.ops.gemm({.a = dy.slice(first, count),
                   .b = x.slice(first, count),
                   .transpose_a = true,
                   .transpose_b = false,
                   .out = dw,
                   .accumulate = true});
    }
  }
}

}  // namespace assay
