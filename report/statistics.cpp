#include "report/statistics.h"

#include <boost/math/distributions/students_t.hpp>
#include <cmath>

namespace assay {

double t_quantile_975(size_t degrees) {
  return boost::math::quantile(boost::math::students_t_distribution<double>(static_cast<double>(degrees)), 0.975);
}

Estimate estimate(const std::vector<double>& values) {
  Estimate e;
  double sum = 0;
  for (double value : values) {
    if (!std::isfinite(value)) {
      ++e.not_finite;
      continue;
    }
    ++e.n;
    sum += value;
  }
  if (e.n == 0) return e;
  e.mean = sum / static_cast<double>(e.n);
  if (e.n < 2) return e;
  double squares = 0;
  for (double value : values)
    if (std::isfinite(value)) squares += (value - e.mean) * (value - e.mean);
  const double deviation = std::sqrt(squares / static_cast<double>(e.n - 1));
  e.half_width = t_quantile_975(e.n - 1) * deviation / std::sqrt(static_cast<double>(e.n));
  return e;
}

Order compare(const Estimate& a, const Estimate& b) {
  if (a.not_finite > 0 || b.not_finite > 0) return Order::not_finite;
  if (a.n == 0 || b.n == 0) return Order::unknown;
  if (!a.has_interval() || !b.has_interval()) return Order::no_repeats;
  if (a.mean + a.half_width < b.mean - b.half_width) return Order::less;
  if (b.mean + b.half_width < a.mean - a.half_width) return Order::greater;
  return Order::not_distinguishable;
}

}  // namespace assay
