// The routed experts of one layer, from normed rows to expert outputs in permuted order, and back. One class per way of
// executing them; all compute the same function.
#pragma once

#include "engine/model/linear.h"

namespace assay {

// The tensors of one layer's routed experts.
struct ExpertBuffers {
  const Weight *w1 = nullptr, *w2 = nullptr;
  Tensor start, rows;        // i32 [E]
  Tensor token_of, gate_of;  // [R]
  Tensor n;                  // [N, d]
  Quantized n8;              // the same in FP8 (FP8 experts)
  Tensor xg, hidden, y;      // [R, d], [R, h], [R, d]
  Quantized xg8, hidden8;
  // backward
  Tensor dyg, du, dz, gate_grad, xg_again, dxg;  // du in eager execution only
  Quantized dyg8, gated8, dz8, n_again8, xg_again8;
};

class Experts {
 public:
  Experts(const Context& c, int64_t layer, ExpertBuffers buffers) : c_(c), layer_(layer), b_(std::move(buffers)) {}
  virtual ~Experts() = default;
  // n (or n8) -> y, leaving `hidden` for the backward. start, rows, token_of and gate_of are set.
  void forward();
  // dy [N, d] (dy8 with FP8 experts): gradient of the block's output -> dxg, gate_grad, gradients of W1 and W2.
  void backward(const Tensor& dy, const Quantized& dy8);

 protected:
  virtual void begin() {}        // the routing is known now
  virtual void up() = 0;         // xg -> hidden = relu(xg W1^T)^2
  virtual void down() = 0;       // hidden -> y
  virtual void down_grad() = 0;  // dyg -> dz, gate_grad; hidden *= gate
  virtual void up_grad() = 0;    // dz -> dxg
  virtual void weight_grad(const Weight&, const Tensor& dy, const Quantized& dy8, const Tensor& x,
                           const Quantized& x8) = 0;
  Fp8Range range(Fp8Slot slot) const { return delayed_range(slot, layer_); }

  const Context& c_;
  int64_t layer_;
  ExpertBuffers b_;
};

// Grouped products over device-side row counts: dynamic and static execution.
class GroupedExperts final : public Experts {
 public:
  using Experts::Experts;

 protected:
  void up() override;
  void down() override;
  void down_grad() override;
  void up_grad() override;
  void weight_grad(const Weight&, const Tensor&, const Quantized&, const Tensor&, const Quantized&) override;

 private:
  Groups groups() const;
};

// A host loop of plain products, one expert at a time: eager execution. Reads the row counts once per forward.
class LoopedExperts final : public Experts {
 public:
  using Experts::Experts;

 protected:
  void begin() override;
  void up() override;
  void down() override;
  void down_grad() override;
  void up_grad() override;
  void weight_grad(const Weight&, const Tensor&, const Quantized&, const Tensor&, const Quantized&) override;

 private:
  struct Range {
    int64_t expert, first, count;
  };
  std::vector<Range> ranges_;  // of experts that have rows
};

}  // namespace assay
