#include "engine/ops/attention.h"

#include <cmath>

#include "engine/ops/cpu/matmul.h"
#include "engine/ops/cpu/rows.h"
#include "engine/ops/cpu/vector_math.h"

namespace assay::cpu {
namespace {

constexpr int64_t query_block = 64;

struct Shape {
  int64_t B, T, H, D, window;
  int64_t heads() const { return B * H; }
};

// A block of queries and the keys that any of them sees.
struct Block {
  int64_t q, queries, k, keys;
};
Block block_at(const Shape& s, int64_t q) {
  const int64_t queries = std::min(query_block, s.T - q);
  const int64_t k = std::max<int64_t>(0, q - s.window + 1);
  return {q, queries, k, q + queries - k};
}
// Keys of the block that query r of it sees: [first, end), counted from b.k.
int64_t first_key(const Shape& s, const Block& b, int64_t r) {
  return std::max<int64_t>(0, b.q + r - s.window + 1 - b.k);
}
int64_t end_key(const Block& b, int64_t r) {
  return b.q + r + 1 - b.k;
}

// Row t of one head in a buffer of T rows of `stride` elements, gathered and widened into [T, D].
template <class S>
void gather_head(const S* from, int64_t stride, const Shape& s, Acc<S>* to) {
  for (int64_t t = 0; t < s.T; ++t) {
#pragma omp simd
    for (int64_t j = 0; j < s.D; ++j) to[t * s.D + j] = load(from[t * stride + j]);
  }
}
template <class S>
void scatter_head(const Acc<S>* from, int64_t stride, const Shape& s, S* to) {
  for (int64_t t = 0; t < s.T; ++t) store_scaled(from + t * s.D, Acc<S>(1), to + t * stride, s.D);
}

// scores[queries, keys] = q k^T / sqrt(D) of a block.
template <class A>
void block_scores(const Shape& s, const Block& b, const A* q, const A* k, A* scores) {
  matmul({b.queries, b.keys, s.D, false, true, s.D, s.D, b.keys}, A(1) / std::sqrt(A(s.D)), q + b.q * s.D,
         k + b.k * s.D, A(0), scores);
}

// Turns a row of scores into probabilities with zeros outside [first, end); returns the log-sum-exp.
template <class A>
A softmax_row(A* row, int64_t keys, int64_t first, int64_t end) {
  A top = row[first];
  for (int64_t j = first; j < end; ++j) top = std::max(top, row[j]);
  const A sum = exp_minus(row + first, end - first, top);
  const A inverse = A(1) / sum;
#pragma omp simd
  for (int64_t j = first; j < end; ++j) row[j] *= inverse;
  std::fill(row, row + first, A(0));
  std::fill(row + end, row + keys, A(0));
  return top + std::log(sum);
}

template <class S>
void head_forward(const AttentionArgs& a, const Shape& s, int64_t b, int64_t h) {
  using A = Acc<S>;
  const int64_t packed = 3 * s.H * s.D, head = s.T * s.D;
  A* qkv = scratch<A>(Slot::s0, 3 * head);
  A* out = scratch<A>(Slot::s1, head);
  A* scores = scratch<A>(Slot::s2, query_block * s.T);
  for (int64_t part = 0; part < 3; ++part) {
    gather_head(a.qkv.as<S>() + b * s.T * packed + (part * s.H + h) * s.D, packed, s, qkv + part * head);
  }
  for (int64_t q = 0; q < s.T; q += query_block) {
    const Block k = block_at(s, q);
    block_scores(s, k, qkv, qkv + head, scores);
    for (int64_t r = 0; r < k.queries; ++r) {
      a.lse.as<A>()[(b * s.H + h) * s.T + q + r] =
          softmax_row(scores + r * k.keys, k.keys, first_key(s, k, r), end_key(k, r));
    }
    matmul({k.queries, s.D, k.keys, false, false, k.keys, s.D, s.D}, A(1), scores, qkv + 2 * head + k.k * s.D, A(0),
           out + q * s.D);
  }
  scatter_head<S>(out, s.H * s.D, s, a.out.as<S>() + b * s.T * s.H * s.D + h * s.D);
}

// In place: scores -> probabilities P, dprobs -> gradient of the scaled scores P * (dprobs - delta) / sqrt(D).
template <class A>
void softmax_grad_row(A* p, A* dp, int64_t keys, int64_t first, int64_t end, A lse, A delta, A scale) {
  exp_minus(p + first, end - first, lse);
#pragma omp simd
  for (int64_t j = first; j < end; ++j) dp[j] = p[j] * (dp[j] - delta) * scale;
  std::fill(p, p + first, A(0));
  std::fill(p + end, p + keys, A(0));
  std::fill(dp, dp + first, A(0));
  std::fill(dp + end, dp + keys, A(0));
}

template <class S>
void head_backward(const AttentionGradArgs& a, const Shape& s, int64_t b, int64_t h) {
  using A = Acc<S>;
  const int64_t packed = 3 * s.H * s.D, row = s.H * s.D, head = s.T * s.D;
  const int64_t packed_at = b * s.T * packed + h * s.D, row_at = b * s.T * row + h * s.D;
  A* qkv = scratch<A>(Slot::s0, 3 * head);
  A* dqkv = scratch<A>(Slot::s1, 3 * head);
  A* dout = scratch<A>(Slot::s2, head);
  A* p = scratch<A>(Slot::s3, query_block * s.T);
  A* dp = scratch<A>(Slot::s4, query_block * s.T);
  for (int64_t part = 0; part < 3; ++part)
    gather_head(a.qkv.as<S>() + packed_at + part * row, packed, s, qkv + part * head);
  gather_head(a.dout.as<S>() + row_at, row, s, dout);
  std::fill(dqkv, dqkv + 3 * head, A(0));
  for (int64_t q = 0; q < s.T; q += query_block) {
    const Block k = block_at(s, q);
    block_scores(s, k, qkv, qkv + head, p);
    const A* dout_block = dout + q * s.D;
    matmul({k.queries, k.keys, s.D, false, true, s.D, s.D, k.keys}, A(1), dout_block, qkv + 2 * head + k.k * s.D, A(0),
           dp);
    for (int64_t r = 0; r < k.queries; ++r) {
      const A delta = row_dot(dout_block + r * s.D, a.out.as<S>() + row_at + (q + r) * row, s.D);
      softmax_grad_row(p + r * k.keys, dp + r * k.keys, k.keys, first_key(s, k, r), end_key(k, r),
                       a.lse.as<A>()[(b * s.H + h) * s.T + q + r], delta, A(1) / std::sqrt(A(s.D)));
    }
    matmul({k.queries, s.D, k.keys, false, false, k.keys, s.D, s.D}, A(1), dp, qkv + head + k.k * s.D, A(0),
           dqkv + q * s.D);
    matmul({k.keys, s.D, k.queries, true, false, k.keys, s.D, s.D}, A(1), dp, qkv + q * s.D, A(1),
           dqkv + head + k.k * s.D);
    matmul({k.keys, s.D, k.queries, true, false, k.keys, s.D, s.D}, A(1), p, dout_block, A(1),
           dqkv + 2 * head + k.k * s.D);
  }
  for (int64_t part = 0; part < 3; ++part) {
    scatter_head<S>(dqkv + part * head, packed, s, a.dqkv.as<S>() + packed_at + part * row);
  }
}

template <class Args>
Shape check(const char* op, const Args& a) {
  ASSAY_OP_CHECK(op, a.qkv && a.qkv.rank == 4 && a.qkv.dim(1) == 3,
                 "qkv is " + a.qkv.describe() + ", expected [B*T, 3, H, D]");
  const Shape s{a.B, a.T, a.qkv.dim(2), a.qkv.dim(3), a.window};
  ASSAY_OP_CHECK(op, s.B > 0 && s.T > 0 && s.window > 0 && s.B * s.T == a.qkv.dim(0),
                 "B " + std::to_string(s.B) + ", T " + std::to_string(s.T) + ", window " + std::to_string(s.window) +
                     " do not fit qkv " + a.qkv.describe());
  check_tensor(op, "out", a.out, a.qkv.dtype, {s.B * s.T * s.H * s.D});
  check_tensor(op, "lse", a.lse, stat_dtype(a.qkv.dtype), {s.B * s.H * s.T});
  return s;
}

}  // namespace

void attention(const AttentionArgs& a) {
  const Shape s = check("attention", a);
  dispatch("attention", a.qkv.dtype, [&]<class S>(S) {
#pragma omp parallel for schedule(dynamic) if (s.heads() > 1)
    for (int64_t i = 0; i < s.heads(); ++i) head_forward<S>(a, s, i / s.H, i % s.H);
  });
}

void attention_grad(const AttentionGradArgs& a) {
  const Shape s = check("attention_grad", a);
  check_tensor("attention_grad", "dout", a.dout, a.qkv.dtype, {s.B * s.T * s.H * s.D});
  check_tensor("attention_grad", "dqkv", a.dqkv, a.qkv.dtype, {s.B * s.T * 3 * s.H * s.D});
  dispatch("attention_grad", a.qkv.dtype, [&]<class S>(S) {
#pragma omp parallel for schedule(dynamic) if (s.heads() > 1)
    for (int64_t i = 0; i < s.heads(); ++i) head_backward<S>(a, s, i / s.H, i % s.H);
  });
}

}  // namespace assay::cpu
