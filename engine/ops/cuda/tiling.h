// How the memory-bound kernels are cut into blocks. Two kinds of choice, kept apart:
//  - what decides the order in which a row is summed (threads a row, vectors a thread) is a function of shape alone;
//  - what changes no bit of any result (warps of a block, rows of a warp, where each row is worked on by the same lanes
//    in the same order) may be chosen by measuring. So two runs that measured differently still agree to the last bit.
// Not here, as no choice is left: vectors are 16 bytes wherever the engine takes a row at all; add, cast, adamw,
// combine, relu2 and mix_norm_grad without lambdas run at 96 to 101 % of a copy with the blocks they have; in
// mix_norm_grad with lambdas, moe_norm_grad, sums and the loss the block is part of the order of a sum, and where FP8
// codes leave both ways it is the tile that is transposed. Plain C++: nothing here needs CUDA.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "spec/backend_limits.h"

namespace assay::cuda {

constexpr int64_t max_row = cuda_limits[RunSize::width].most;

struct Tiling {
  // Rows of the norms by their width (whole warps for d12 and d24, a block beyond), else a block of 128 threads a row.
  bool by_width = true;
  // Warps of a block: forward norms, norm_route, qk_norm_rope and its plain gradient, permute without quantising.
  int norm_warps = 4, route_warps = 4, rope_warps = 8, rope_grad_warps = 8, permute_warps = 8;
  int route_rows = 0;  // rows of norm_route that a warp takes together; 0: by width and experts
};

// One tiling for every shape: blocks of 128 threads; a row of the norms by a block, any other row by a warp.
inline constexpr Tiling fixed_tiling{.by_width = false,
                                     .norm_warps = 4,
                                     .route_warps = 4,
                                     .rope_warps = 4,
                                     .rope_grad_warps = 4,
                                     .permute_warps = 4,
                                     .route_rows = 1};

// How a row of d columns lies over threads, each of which holds `chunks` vectors of 8 columns.
struct RowShape {
  int threads = 0, chunks = 0;  // 0: there is none for rows that long
  bool operator==(const RowShape&) const = default;
};
constexpr RowShape row_shape(int64_t d, bool by_width) {
  if (d > max_row) return {};
  if (!by_width) return {128, d <= 1024 ? 1 : 4};
  if (d <= 256) return {32, 1};
  if (d <= 768) return {32, 3};
  if (d <= 1536) return {64, 3};
  return {128, 4};
}

// Rows of norm_route a warp: each router weight it loads serves all of them, but they take registers. With few experts
// two rows and more warps are faster, with many four. wanted: 0, or as many as there are registers for. 0: rows of d
// columns are too long for the router.
constexpr int route_rows(int64_t d, int64_t experts, bool bf16, int wanted) {
  const int most = d <= 256 ? 2 : d <= 768 ? (bf16 ? 4 : 2) : d <= 1536 ? (bf16 ? 2 : 1) : d <= max_row && bf16 ? 1 : 0;
  if (wanted > 0) return std::min(wanted, most);
  return std::min(most, experts > 16 ? 4 : 2);
}

// What may be measured. No candidate is a larger block than the first: the compiler would have to give the kernel fewer
// registers, or allow it more and lose the first its warps.
enum class TunedKernel { norm, route, rope, rope_grad, permute };
struct Knob {
  TunedKernel kernel;
  const char *name, *unit;
  int Tiling::*value;
  std::array<int, 3> candidates;  // first: what holds unless another is faster
};
inline constexpr Knob knobs[] = {
    {TunedKernel::norm, "norm", "warps a block", &Tiling::norm_warps, {4, 2, 1}},
    {TunedKernel::route, "route", "rows a warp", &Tiling::route_rows, {0, 1, 4}},
    {TunedKernel::route, "route", "warps a block", &Tiling::route_warps, {4, 2, 1}},
    {TunedKernel::rope, "rope", "warps a block", &Tiling::rope_warps, {8, 4, 2}},
    {TunedKernel::rope_grad, "rope_grad", "warps a block", &Tiling::rope_grad_warps, {8, 4, 2}},
    {TunedKernel::permute, "permute", "warps a block", &Tiling::permute_warps, {8, 4, 2}},
};

// Of the candidates' times the one to take: the first, unless another is at least 2 % faster than it. Repeats of one
// kernel differ by about 1 %.
inline size_t fastest(const std::array<double, 3>& us) {
  const size_t least = static_cast<size_t>(std::min_element(us.begin(), us.end()) - us.begin());
  return us[least] <= 0.98 * us[0] ? least : 0;
}

struct KnobTimes {
  const Knob* knob;
  std::array<double, 3> us;  // of its candidates
};
// The tiling that the times ask for.
inline Tiling chosen_tiling(const std::vector<KnobTimes>& times) {
  Tiling t;
  for (const KnobTimes& k : times) t.*k.knob->value = k.knob->candidates[fastest(k.us)];
  return t;
}

}  // namespace assay::cuda
