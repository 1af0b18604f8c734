// What each backend can compute, stated once. The kernels size their memory by these numbers and refuse what is beyond
// them; the plan refuses the same, in the same words, before anything is queued (engine/plan/backend_check.h); the
// table in docs/spec.md is compared with them by a test. base/limits.h says what a spec may ask for on any backend.
// Light enough for every kernel to include.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/limits.h"
#include "base/words.h"

namespace assay {

// The sizes of a run that a backend may bound: enumerator, its name in a message, what it follows from.
#define ASSAY_RUN_SIZES(X)                                                                                     \
  X(devices, "devices", "")                                                                                    \
  X(experts, "model.experts", "")                                                                              \
  X(top_k, "model.top_k", "")                                                                                  \
  X(head_dim, "model.head_dim", "")                                                                            \
  X(width, "the model width", "model.d_model, or 64 * model.depth")                                            \
  X(expert_width, "the expert width", "4 * width / (model.top_k + 1)")                                         \
  X(vocab, "model.vocab_size", "")                                                                             \
  X(tokens, "tokens of a micro-batch", "train.device_batch * model.sequence_len")                              \
  X(picks, "picks of a micro-batch", "train.device_batch * model.sequence_len * model.top_k")                  \
  X(routed_rows, "routed rows of a micro-batch", "its picks, or experts * capacity; lower train.device_batch") \
  X(scratch_mib, "MiB of scratch memory of a micro-batch", "it grows with its tokens; lower train.device_batch")
ASSAY_WORDS(RunSize, "size of a run", ASSAY_RUN_SIZES);
inline constexpr size_t run_size_count = std::size(RunSize_words);
using RunSizes = std::array<int64_t, run_size_count>;

// The values that a size may have.
struct Bound {
  int64_t most = INT64_MAX;
  int64_t multiple = 1;
  std::array<int64_t, 2> only{};  // these alone, where they are not 0
  const char* why = "";

  constexpr bool takes(int64_t value) const {
    if (only[0] != 0) return value == only[0] || value == only[1];
    return value <= most && value % multiple == 0;
  }
  // "at most 4096, multiples of 8", "64 or 128", "any"
  std::string rule() const;
};

struct BackendLimits {
  const char* name;
  bool fp32;              // computes precision = "fp32"
  int64_t row_alignment;  // every expert's rows start at a multiple of it
  std::array<Bound, run_size_count> bounds{};

  constexpr const Bound& operator[](RunSize size) const { return bounds[static_cast<size_t>(size)]; }
  constexpr Bound& operator[](RunSize size) { return bounds[static_cast<size_t>(size)]; }
};

// "model.experts = 129; the cuda backend takes at most 128"
std::string refusal(const BackendLimits&, RunSize, int64_t value);
// The first size that the backend does not take; nothing: it takes them all.
std::optional<std::string> size_problem(const BackendLimits&, const RunSizes&);
// What a backend without FP32 says to precision = "fp32".
std::string fp32_refusal();

// FP8 on either backend: widths in whole multiples of this, with blockwise scales of fp8_block, the values under one
// scale.
inline constexpr int fp8_multiple = 16;
inline constexpr int fp8_block = 128;

namespace backend_detail {

constexpr Bound one_device{.most = 1, .why = "no run spans devices"};
constexpr Bound int32_rows{.most = INT32_MAX, .why = "row numbers have 32 bits"};

constexpr BackendLimits cpu() {
  BackendLimits l{.name = "the cpu backend", .fp32 = true, .row_alignment = 1};
  l[RunSize::devices] = one_device;
  l[RunSize::picks] = l[RunSize::routed_rows] = int32_rows;
  return l;
}

constexpr BackendLimits cuda() {
  // A tile of 128 rows of the grouped products must not meet two experts.
  BackendLimits l{.name = "the cuda backend", .fp32 = false, .row_alignment = 128};
  constexpr const char* vectors = "rows are read 16 bytes at a time";
  l[RunSize::devices] = one_device;
  l[RunSize::experts] = {.most = 128, .why = "the grouped products keep the experts' first rows in shared memory"};
  l[RunSize::top_k] = {.most = 32, .why = "a lane of a warp has a pick each"};
  l[RunSize::head_dim] = {.only = {64, 128}, .why = "what cuDNN's attention is used and tested with"};
  l[RunSize::width] = {
      .most = 4096, .multiple = 8, .why = "a row lies in the registers of 128 threads, in vectors of 8"};
  l[RunSize::expert_width] = {.multiple = 8, .why = vectors};
  l[RunSize::vocab] = {.multiple = 8, .why = vectors};
  l[RunSize::tokens] = {.multiple = 16, .why = "transposed operands are read 16 bytes at a time along the tokens"};
  l[RunSize::picks] = l[RunSize::routed_rows] = int32_rows;
  l[RunSize::scratch_mib] = {.most = limits::cuda_workspace_bytes >> 20, .why = "all ops share one block"};
  return l;
}

constexpr BackendLimits cuda_fp8() {
  BackendLimits l = cuda();
  l.name = "the cuda backend in FP8";
  for (const RunSize size : {RunSize::width, RunSize::expert_width, RunSize::vocab}) l[size].multiple = fp8_multiple;
  // A launch has 65,535 blocks along y: tiles of 64 tokens, and of 128 routed rows.
  constexpr const char* tiles = "in FP8 a launch has 65,535 tiles of 64 tokens, of 128 routed rows";
  l[RunSize::tokens].most = 64 * 65'535;
  l[RunSize::tokens].why = tiles;
  l[RunSize::routed_rows] = {.most = 128 * 65'535, .why = tiles};
  return l;
}

}  // namespace backend_detail

inline constexpr BackendLimits cpu_limits = backend_detail::cpu();
inline constexpr BackendLimits cuda_limits = backend_detail::cuda();
inline constexpr BackendLimits cuda_fp8_limits = backend_detail::cuda_fp8();

}  // namespace assay
