#include "cli/nearest.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

namespace assay {
namespace {

// Edits (insert, delete, replace) between two words: Wagner and Fischer 1974, one row at a time.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t fewest = SIZE_MAX;
  for (const std::string& candidate : candidates) {
    const size_t edits = distance(word, candidate);
    if (edits >= fewest || edits > (std::max(word.size(), candidate.size()) + 1) / 3) continue;
    fewest = edits;
    best = candidate;
  }
  return best;
}

}  // namespace assay
