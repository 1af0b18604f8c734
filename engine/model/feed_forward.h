// y = relu(x W1^T)^2 W2^T over groups of rows, forward and backward. The routed experts are a group of rows each, the
// shared expert is one group of all rows.
#pragma once

#include <memory>
#include <vector>

#include "engine/model/linear.h"

namespace assay {

// A matrix in the forms its readers take; those that nobody reads are empty.
struct Operand {
  Tensor plain;    // [rows, cols] in the activations' precision
  Quantized fp8;   // the same in FP8
  Quantized fp8t;  // and transposed: operand of an FP8 weight gradient
};

struct FeedForwardSpec {
  const Weight *w1 = nullptr, *w2 = nullptr;  // stacks of matrices, or one matrix each
  const char* suffix = "";                    // of the buffers' names
  int64_t rows = 0;
  Tensor groups;           // i32 [2, E]: first row and row count of each group; empty: one group of all rows
  Tensor gate, gate_grad;  // [rows]; empty: the rows have no gate
  Fp8Slot hidden = Fp8Slot::hidden, grad = Fp8Slot::routed_grad;
};

// Its products write FP8 themselves where nobody reads anything else (ModelShape::fused_fp8). Otherwise they write the
// activations' precision and, for products in FP8, a pass of its own quantises that.
class FeedForward {
 public:
  static std::unique_ptr<FeedForward> make(const Context&, int64_t layer, const FeedForwardSpec&);
  virtual ~FeedForward() = default;
  // x -> y, leaving `hidden` = relu(x W1^T)^2 for the backward. The groups are known.
  void forward(const Operand& x, const Tensor& y);
  // dy, already times its rows' gates -> gradient of W2, gate_grad; `hidden` is dead afterwards.
  void backward_down(const Operand& dy);
  // Next, in either order: -> dx, and x of the forward -> gradient of W1.
  void backward_input(const Tensor& dx);
  void backward_weight(const Operand& x) { weight_grad(*spec_.w1, dz_, x); }

 protected:
  FeedForward(const Context&, int64_t layer, const FeedForwardSpec&);
  virtual void begin() {}                         // a new forward
  virtual void up(const Operand& x) = 0;          // x -> hidden
  virtual void down(const Tensor& y) = 0;         // hidden -> y
  virtual void down_grad(const Operand& dy) = 0;  // dy, hidden -> dz, gate_grad
  virtual void up_grad(const Tensor& dx) = 0;     // dz -> dx
  virtual void weight_grad(const Weight&, const Operand& dy, const Operand& x) = 0;
  Groups groups() const;

  const Context& c_;
  int64_t layer_;
  FeedForwardSpec spec_;
  Operand hidden_, dz_;

 private:
  Operand take(const char* what, DType format) const;
  void fill_gaps(const Tensor& out, const Quantized& quantised) const;
  void encode_dz();

  bool has_gaps_ = false;
};

// Grouped products over device-side row counts: dynamic and static execution.
class GroupedFeedForward final : public FeedForward {
 public:
  GroupedFeedForward(const Context& c, int64_t layer, const FeedForwardSpec& spec) : FeedForward(c, layer, spec) {}

 protected:
  void up(const Operand& x) override;
  void down(const Tensor& y) override;
  void down_grad(const Operand& dy) override;
  void up_grad(const Tensor& dx) override;
  void weight_grad(const Weight&, const Operand& dy, const Operand& x) override;

 private:
  GroupedGemmArgs product(const Operand& x, const Weight&, bool backward) const;
  void write_to(const Operand& out, Fp8Slot, GroupedGemmArgs*) const;
};

// Op by op, a host loop of plain products over the groups: eager execution. Reads the row counts once per forward.
class LoopedFeedForward final : public FeedForward {
 public:
  LoopedFeedForward(const Context&, int64_t layer, const FeedForwardSpec&);

 protected:
  void begin() override;
  void up(const Operand& x) override;
  void down(const Tensor& y) override;
  void down_grad(const Operand& dy) override;
  void up_grad(const Tensor& dx) override;
  void weight_grad(const Weight&, const Operand& dy, const Operand& x) override;

 private:
  struct Range {
    int64_t group, first, count;
  };
  void product(const Operand& x, const Weight&, bool backward, const Range&, const Tensor& out) const;

  Tensor du_;
  std::vector<Range> ranges_;  // of the groups that have rows
};

}  // namespace assay
