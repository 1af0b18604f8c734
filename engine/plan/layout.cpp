// Offline placement of buffers with known lifetimes ("dynamic storage allocation"): greedy by size, first fit among the
// buffers that are live at the same time. Known to stay within a few percent of the lower bound on training graphs.
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

// Buffers that live throughout overlap everything: at the bottom, without gaps, they cost nothing. Then by size.
std::vector<size_t> placement_order(const std::vector<PlannedBuffer>& buffers) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  int begin = 0, end = 0;
  for (const PlannedBuffer& b : buffers) {
    begin = std::min(begin, b.first);
    end = std::max(end, b.last);
  }
  const auto throughout = [&](const PlannedBuffer& b) { return b.first <= begin && b.last >= end; };
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) {
    const PlannedBuffer &a = buffers[i], &b = buffers[j];
    if (throughout(a) != throughout(b)) return throughout(a);
    if (a.bytes != b.bytes) return a.bytes > b.bytes;
    return a.first < b.first;
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
