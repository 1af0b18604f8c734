#include "engine/ops/loss.h"

#include "engine/ops/cpu/rows.h"
#include "engine/ops/cpu/vector_math.h"

namespace assay::cpu {
namespace {

template <class S>
void row_loss(const SoftcapXentArgs& a, int64_t row, int64_t V) {
  using A = Acc<S>;
  const A cap = static_cast<A>(a.softcap), grad_scale = static_cast<A>(a.grad_scale);
  S* logits = a.logits.as<S>() + row * V;
  const int32_t target = a.targets.as<int32_t>()[row];
  A* tanhs = scratch<A>(Slot::s0, V);
  A* p = scratch<A>(Slot::s1, V);
  A top = -cap;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < V; ++j) {
    tanhs[j] = tanh_fast(load(logits[j]) / cap);
    p[j] = cap * tanhs[j];
    top = p[j] > top ? p[j] : top;
  }
  const A target_z = p[target];
  const A sum = exp_minus(p, V, top);
  a.loss.as<A>()[row] = top + std::log(sum) - target_z;
  if (a.forward_only) return;
  const A inverse = A(1) / sum;
  const A scaled = inverse * grad_scale;
#pragma omp simd
  for (int64_t j = 0; j < V; ++j) store(logits[j], p[j] * scaled * (A(1) - tanhs[j] * tanhs[j]));
  const A target_t = tanhs[target];
  store(logits[target], (p[target] * inverse - A(1)) * grad_scale * (A(1) - target_t * target_t));
}

}  // namespace

void softcap_xent(const SoftcapXentArgs& a) {
  const char* op = "softcap_xent";
  ASSAY_OP_CHECK(op, a.logits && a.logits.rank == 2 && a.softcap > 0,
                 "logits are " + a.logits.describe() + ", expected [C, V]");
  const int64_t C = a.logits.dim(0), V = a.logits.dim(1);
  check_tensor(op, "targets", a.targets, DType::i32, {C});
  check_tensor(op, "loss", a.loss, stat_dtype(a.logits.dtype), {C});
  for (int64_t i = 0; i < C; ++i) {
    const int32_t target = a.targets.as<int32_t>()[i];
    ASSAY_OP_CHECK(op, target >= 0 && target < V,
                   "target " + std::to_string(target) + " at row " + std::to_string(i) +
                       " is outside the vocabulary of " + std::to_string(V));
  }
  dispatch(op, a.logits.dtype, [&]<class S>(S) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < C; ++row) row_loss<S>(a, row, V);
  });
  if (a.forward_only || (!a.grad8 && !a.grad8t)) return;
  quantize({.x = a.logits, .out = a.grad8, .transposed = a.grad8t, .static_scale = gradient_scale(a)});
}

}  // namespace assay::cpu
