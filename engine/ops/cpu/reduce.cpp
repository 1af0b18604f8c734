#include "engine/ops/reduce.h"

#include <cstring>

#include "engine/ops/cpu/rows.h"

namespace assay::cpu {
namespace {

// Sum of value(x[i]) in double: chunks of fixed size, then the chunks in order, whatever the number of threads.
template <class S, class Value>
double chunked_sum(const S* x, int64_t n, Value&& value) {
  constexpr int64_t chunk = 4096, lanes = 8;
  const int64_t chunks = (n + chunk - 1) / chunk;
  double* sums = scratch<double>(Slot::s0, chunks);
#pragma omp parallel for schedule(static) if (n > 1 << 15)
  for (int64_t c = 0; c < chunks; ++c) {
    double lane[lanes] = {};
    const int64_t begin = c * chunk, end = std::min(n, begin + chunk);
    const int64_t whole = begin + ((end - begin) & ~(lanes - 1));
    for (int64_t i = begin; i < whole; i += lanes) {
#pragma omp simd
      for (int64_t l = 0; l < lanes; ++l) lane[l] += value(static_cast<double>(load(x[i + l])));
    }
    double sum = 0;
    for (double s : lane) sum += s;
    for (int64_t i = whole; i < end; ++i) sum += value(static_cast<double>(load(x[i])));
    sums[c] = sum;
  }
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += sums[c];
  return total;
}

template <class From, class To>
void convert(const From* from, To* to, int64_t n, bool add) {
  using A = std::conditional_t<std::is_same_v<From, double> || std::is_same_v<To, double>, double, float>;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (int64_t i = 0; i < n; ++i) {
    const A value = add ? A(load(to[i])) + A(load(from[i])) : A(load(from[i]));
    store(to[i], static_cast<Acc<To>>(value));
  }
}

}  // namespace

void sum_squares(const SumSquaresArgs& a) {
  for (size_t i = 0; i < a.x.size(); ++i) {
    const Tensor& x = a.x[i];
    ASSAY_OP_CHECK("sum_squares", x && x.dtype == a.x[0].dtype && a.out != nullptr,
                   "x " + x.describe() + " or out is empty, or the types differ");
    dispatch("sum_squares", x.dtype,
             [&]<class S>(S) { a.out[i] += chunked_sum(x.as<S>(), x.numel(), [](double v) { return v * v; }); });
  }
}

void sum(const SumArgs& a) {
  ASSAY_OP_CHECK("sum", a.x && a.out != nullptr, "x " + a.x.describe() + " or out is empty");
  dispatch("sum", a.x.dtype,
           [&]<class S>(S) { *a.out += chunked_sum(a.x.as<S>(), a.x.numel(), [](double x) { return x; }); });
}

void add(const AddArgs& a) {
  const bool one_f64 = (a.x.dtype == DType::f64) != (a.y.dtype == DType::f64);
  ASSAY_OP_CHECK("add", a.x && a.y && a.x.numel() == a.y.numel() && !one_f64,
                 a.x.describe() + " cannot be added to " + a.y.describe());
  dispatch("add", a.x.dtype, [&]<class X>(X) {
    dispatch("add", a.y.dtype, [&]<class Y>(Y) { convert(a.x.as<X>(), a.y.as<Y>(), a.x.numel(), true); });
  });
}

void cast(const CastArgs& a) {
  const bool twice = a.x.dtype == DType::f64 && a.dst.dtype == DType::bf16;  // would round to f32 on the way
  ASSAY_OP_CHECK("cast", a.x && a.dst && a.x.numel() == a.dst.numel() && !twice,
                 a.x.describe() + " cannot be cast to " + a.dst.describe());
  dispatch("cast", a.x.dtype, [&]<class X>(X) {
    dispatch("cast", a.dst.dtype, [&]<class Y>(Y) { convert(a.x.as<X>(), a.dst.as<Y>(), a.x.numel(), false); });
  });
}

void fill_zero(const FillZeroArgs& a) {
  ASSAY_OP_CHECK("fill_zero", a.x, "x is empty");
  std::memset(a.x.data, 0, a.x.bytes());
}

}  // namespace assay::cpu
