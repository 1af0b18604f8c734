// Offline placement of buffers with known lifetimes ("dynamic storage allocation"): the longest lived first, each at
// the lowest place that is free of those live at the same time. Within 1 % of the lower bound on the reference model
// in every precision and way of execution; by size first is never better.
#include <algorithm>
#include <numeric>

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

// Longest lived first, then by size.
std::vector<size_t> placement_order(const std::vector<PlannedBuffer>& buffers) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) {
    const PlannedBuffer &a = buffers[i], &b = buffers[j];
    const int longer = (a.last - a.first) - (b.last - b.first);
    return longer != 0 ? longer > 0 : a.bytes > b.bytes;
  });
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

}  // namespace

size_t lay_out(std::vector<PlannedBuffer>& buffers) {
  std::vector<const PlannedBuffer*> placed;
  size_t total = 0;
  for (size_t index : placement_order(buffers)) {
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

}  // namespace assay
