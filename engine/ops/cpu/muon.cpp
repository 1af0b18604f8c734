#include <cmath>
#include <utility>

#include "engine/ops/cpu/matmul.h"
#include "engine/ops/cpu/rows.h"
#include "engine/ops/optimizer.h"

namespace assay::cpu {
namespace {

// Sums of squares run in double: a matrix has up to millions of entries.
template <class A>
double squared_norm(const A* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

template <class A>
void round_store(A* x, int64_t n, bool bf16) {
  if constexpr (std::is_same_v<A, float>) {
    if (!bf16) return;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[i] = round_bf16(x[i]);
  }
}

template <class A>
class MuonMatrix {
 public:
  MuonMatrix(const MuonStack& stack, int64_t index, const MuonRates& rates, bool bf16)
      : rates_(rates),
        R_(stack.param.dim(1)),
        C_(stack.param.dim(2)),
        n_(R_ * C_),
        tall_(R_ > C_),
        bf16_(bf16),
        param_(stack.param.as<A>() + index * n_),
        g_(stack.grad.as<A>() + index * n_),
        momentum_(stack.momentum.as<A>() + index * n_),
        second_(stack.second_moment.as<A>() + index * std::max(R_, C_)) {}

  void update() {
    nesterov();
    equilibrate_and_normalise();
    orthogonalise();
    snap_norm();
    scale_by_second_moment();
    apply();
  }

 private:
  void nesterov() {
    const A beta = static_cast<A>(rates_.momentum_beta), take = static_cast<A>(1 - rates_.momentum_beta);
#pragma omp simd
    for (int64_t i = 0; i < n_; ++i) {
      momentum_[i] += (g_[i] - momentum_[i]) * take;
      g_[i] += (momentum_[i] - g_[i]) * beta;
    }
  }

  // Rows get one common norm, then the matrix a spectral norm below 1.
  void equilibrate_and_normalise() {
    x_ = scratch<A>(Slot::s0, n_);
    std::copy(g_, g_ + n_, x_);
    round_store(x_, n_, bf16_);
    const double target = std::sqrt(squared_norm(x_, n_) / static_cast<double>(R_));
    for (int64_t r = 0; r < R_; ++r) {
      const double norm = std::sqrt(squared_norm(x_ + r * C_, C_));
      const A factor = static_cast<A>(target / std::max(norm, 1e-6));
      for (int64_t c = 0; c < C_; ++c) x_[r * C_ + c] *= factor;
    }
    round_store(x_, n_, bf16_);
    const A scale = static_cast<A>(1 / (std::sqrt(squared_norm(x_, n_)) * 1.01 + 1e-6));
    for (int64_t i = 0; i < n_; ++i) x_[i] *= scale;
    round_store(x_, n_, bf16_);
  }

  void orthogonalise() {
    const int64_t s = std::min(R_, C_);
    A* gram = scratch<A>(Slot::s1, s * s);
    A* poly = scratch<A>(Slot::s2, s * s);
    A* next = scratch<A>(Slot::s3, n_);
    for (const PolarExpress& p : polar_express) {
      const A a = static_cast<A>(p.a), b = static_cast<A>(p.b), c = static_cast<A>(p.c);
      matmul({s, s, std::max(R_, C_), tall_, !tall_, C_, C_, s}, A(1), x_, x_, A(0), gram);
      round_store(gram, s * s, bf16_);
      std::copy(gram, gram + s * s, poly);
      matmul({s, s, s, false, false, s, s, s}, c, gram, gram, b, poly);
      round_store(poly, s * s, bf16_);
      std::copy(x_, x_ + n_, next);
      if (tall_) {
        matmul({R_, C_, C_, false, false, C_, C_, C_}, A(1), x_, poly, a, next);
      } else {
        matmul({R_, C_, R_, false, false, R_, C_, C_}, A(1), poly, x_, a, next);
      }
      round_store(next, n_, bf16_);
      std::swap(x_, next);
    }
  }

  void snap_norm() {
    const double wanted = std::sqrt(static_cast<double>(std::min(R_, C_)));
    const A scale = static_cast<A>(wanted / std::max(std::sqrt(squared_norm(x_, n_)), 1e-6));
    for (int64_t i = 0; i < n_; ++i) g_[i] = x_[i] * scale;
  }

  // One second moment per entry of the longer side, averaged over the shorter; the matrix keeps its norm.
  void scale_by_second_moment() {
    const bool per_row = R_ >= C_;
    const int64_t entries = std::max(R_, C_);
    const double size = static_cast<double>(std::min(R_, C_));
    double* mean = scratch<double>(Slot::s4, entries);
    A* step = scratch<A>(Slot::s5, entries);
    std::fill(mean, mean + entries, 0.0);
    for (int64_t r = 0; r < R_; ++r) {
      for (int64_t c = 0; c < C_; ++c) {
        const double g = static_cast<double>(g_[r * C_ + c]);
        mean[per_row ? r : c] += g * g;
      }
    }
    double old_norm = 0, new_norm = 0;
    for (int64_t i = 0; i < entries; ++i) {
      mean[i] /= size;
      second_[i] += (static_cast<A>(mean[i]) - second_[i]) * static_cast<A>(1 - rates_.beta2);
      step[i] = A(1) / std::sqrt(std::max(second_[i], A(1e-10)));
      old_norm += mean[i] * size;
      new_norm += mean[i] * size * static_cast<double>(step[i]) * static_cast<double>(step[i]);
    }
    const A keep = static_cast<A>(std::sqrt(old_norm) / std::max(std::sqrt(new_norm), 1e-10));
    for (int64_t r = 0; r < R_; ++r) {
      for (int64_t c = 0; c < C_; ++c) g_[r * C_ + c] *= step[per_row ? r : c] * keep;
    }
  }

  // Cautious decay: only where the update and the weight agree in sign.
  void apply() {
    const double shape = std::sqrt(std::max(1.0, static_cast<double>(R_) / static_cast<double>(C_)));
    const A lr = static_cast<A>(rates_.lr * shape), decay = static_cast<A>(rates_.lr * shape * rates_.weight_decay);
#pragma omp simd
    for (int64_t i = 0; i < n_; ++i) {
      const A decayed = g_[i] * param_[i] >= 0 ? decay * param_[i] : A(0);
      param_[i] -= lr * g_[i] + decayed;
    }
  }

  const MuonRates& rates_;
  int64_t R_, C_, n_;
  bool tall_, bf16_;
  A* param_;
  A* g_;
  A* momentum_;
  A* second_;
  A* x_ = nullptr;
};

template <class A>
void update_stack(const MuonStack& stack, const MuonArgs& a) {
  const int64_t K = stack.param.dim(0);
#pragma omp parallel for schedule(dynamic) if (K > 1)
  for (int64_t k = 0; k < K; ++k) MuonMatrix<A>(stack, k, a.rates, !a.full_precision).update();
}

}  // namespace

void check_muon(const MuonArgs& a) {
  for (const MuonStack& s : a.stacks) {
    const Tensor& p = s.param;
    ASSAY_OP_CHECK("muon", p && p.rank == 3 && p.numel() > 0 && (p.dtype == DType::f32 || p.dtype == DType::f64),
                   "param is " + p.describe() + ", expected f32 or f64 [K, R, C]");
    const int64_t K = p.dim(0), R = p.dim(1), C = p.dim(2);
    const Tensor& first = a.stacks.front().param;
    ASSAY_OP_CHECK(
        "muon", p.dtype == first.dtype && R == first.dim(1) && C == first.dim(2),
        "param is " + p.describe() + " beside " + first.describe() + ": one call takes matrices of one shape");
    check_tensor("muon", "grad", s.grad, p.dtype, {K * R, C});
    check_tensor("muon", "momentum", s.momentum, p.dtype, {K * R, C});
    check_tensor("muon", "second_moment", s.second_moment, p.dtype, {K * std::max(R, C)});
  }
}

void muon(const MuonArgs& a) {
  check_muon(a);
  if (a.skip != nullptr && *a.skip != 0) return;
  for (const MuonStack& stack : a.stacks) {
    if (stack.param.dtype == DType::f64) {
      update_stack<double>(stack, a);
    } else {
      update_stack<float>(stack, a);
    }
  }
}

}  // namespace assay::cpu
