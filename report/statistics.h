// Means of repeats and what they allow one to say.
#pragma once

#include <cstddef>
#include <vector>

namespace assay {

// A mean with the half width of its two-sided 95 % confidence interval (Student 1908: t of n - 1 degrees of freedom
// times s / sqrt(n)). One value has no interval; nothing has no mean.
struct Estimate {
  size_t n = 0;
  double mean = 0;
  double half_width = 0;  // 0 for n < 2
  size_t not_finite = 0;  // values left out: the mean of the others says nothing about these
  bool has_interval() const { return n >= 2; }
};
// Values that are not finite are left out, and counted.
Estimate estimate(const std::vector<double>& values);

// The 97.5 % quantile of Student's t: 12.706 for 1 degree of freedom, 1.960 for very many. degrees >= 1.
double t_quantile_975(size_t degrees);

// What two estimates allow one to say about their order.
enum class Order {
  unknown,              // one of them has no value
  not_finite,           // a value of one of them is not finite
  no_repeats,           // one of them has no interval: the difference may be noise
  not_distinguishable,  // the intervals overlap
  less,                 // the first is less, the intervals are apart
  greater,
};
Order compare(const Estimate& a, const Estimate& b);

}  // namespace assay
