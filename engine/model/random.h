// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A value depends on (seed, stream name, index) alone, so weights are the same whatever order or device fills them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace assay {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class RandomStream {
 public:
  RandomStream(int64_t seed, std::string_view name);
  // Value `index`: in the open interval (0, 1), from 32 bits.
  double uniform(int64_t index) const;
  // Value `index` of a standard normal (Box-Muller on words of one Philox block).
  double normal(int64_t index) const;
  // Values first .. first + n - 1 of the same sequences, four to a block and in parallel. `first` is a multiple of 4.
  void fill_uniform(int64_t first, int64_t n, double* values) const;
  void fill_normal(int64_t first, int64_t n, double* values) const;

 private:
  std::array<uint32_t, 4> block(int64_t index) const;
  std::array<uint32_t, 2> key_;
  uint64_t stream_;
};

}  // namespace assay
