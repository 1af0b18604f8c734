#include "engine/model/arena.h"

#include <fmt/core.h>

#include "engine/ops/error.h"

namespace assay {

Arena::Arena(void* base, const std::vector<PlannedBuffer>& buffers) : base_(static_cast<char*>(base)) {
  for (const PlannedBuffer& b : buffers) buffers_.emplace(b.name, b);
}

Tensor Arena::take(const std::string& name, DType dtype, std::initializer_list<int64_t> dims) const {
  const auto found = buffers_.find(name);
  if (found == buffers_.end())
    throw EngineError(FailureReason::internal, fmt::format("the plan has no buffer \"{}\"", name), "arena", name);
  Tensor t(base_ + found->second.offset, dtype, dims);
  if (t.bytes() != found->second.bytes)
    throw EngineError(FailureReason::internal,
                      fmt::format("buffer \"{}\": the plan has {} bytes, the model needs {} for {}", name,
                                  found->second.bytes, t.bytes(), t.describe()),
                      "arena", name);
  return t;
}

Quantized Arena::take_fp8(const std::string& name, DType format, ScaleMode mode,
                          std::initializer_list<int64_t> dims) const {
  Quantized q{take(name + ".codes", format, dims), {}, mode};
  const int64_t rows = q.codes.dim(q.codes.rank - 2), col_blocks = (q.codes.dim(q.codes.rank - 1) + 127) / 128;
  const int64_t row_blocks = (rows + 127) / 128;
  const std::string scales = name + ".scales";
  if (q.codes.rank == 3) {
    const int64_t groups = q.codes.dim(0);
    switch (mode) {
      case ScaleMode::tensorwise:
        q.scales = take(scales, DType::f32, {groups, 1});
        break;
      case ScaleMode::rowwise:
        q.scales = take(scales, DType::f32, {groups, rows});
        break;
      case ScaleMode::block_1x128:
        q.scales = take(scales, DType::f32, {groups, rows, col_blocks});
        break;
      case ScaleMode::block_128x128:
        q.scales = take(scales, DType::f32, {groups, row_blocks, col_blocks});
        break;
    }
    return q;
  }
  switch (mode) {
    case ScaleMode::tensorwise:
      q.scales = take(scales, DType::f32, {1});
      break;
    case ScaleMode::rowwise:
      q.scales = take(scales, DType::f32, {rows});
      break;
    case ScaleMode::block_1x128:
      q.scales = take(scales, DType::f32, {rows, col_blocks});
      break;
    case ScaleMode::block_128x128:
      q.scales = take(scales, DType::f32, {row_blocks, col_blocks});
      break;
  }
  return q;
}

}  // namespace assay
