#include "engine/ops/tensor.h"

#include "engine/ops/error.h"

namespace assay {

const char* to_string(DType t) {
  switch (t) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::fp8_e4m3:
      return "fp8_e4m3";
    case DType::fp8_e5m2:
      return "fp8_e5m2";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

const char* to_string(ScaleMode mode) {
  switch (mode) {
    case ScaleMode::tensorwise:
      return "tensorwise";
    case ScaleMode::rowwise:
      return "rowwise";
    case ScaleMode::block_1x128:
      return "block_1x128";
    case ScaleMode::block_128x128:
      return "block_128x128";
  }
  return "?";
}

Tensor Tensor::slice(int64_t first, int64_t count) const {
  ASSAY_OP_CHECK("slice", rank > 0 && first >= 0 && count >= 0 && first + count <= shape[0],
                 "[" + std::to_string(first) + ", +" + std::to_string(count) + ") is outside " + describe());
  Tensor t = *this;
  const int64_t entry = shape[0] == 0 ? 0 : numel() / shape[0];
  t.data = static_cast<std::byte*>(data) + static_cast<size_t>(first * entry) * size_of(dtype);
  t.shape[0] = count;
  return t;
}

Tensor Tensor::view(std::initializer_list<int64_t> dims) const {
  const Tensor t(data, dtype, dims);
  ASSAY_OP_CHECK("view", t.numel() == numel(), describe() + " cannot be seen as " + t.describe());
  return t;
}

std::string Tensor::describe() const {
  std::string text = std::string(to_string(dtype)) + "[";
  for (int i = 0; i < rank; ++i) text += (i > 0 ? ", " : "") + std::to_string(dim(i));
  return text + "]";
}

Quantized Quantized::slice(int64_t group) const {
  ASSAY_OP_CHECK("slice", codes.rank == 3 && scales && codes.dim(0) > 0 && scales.numel() % codes.dim(0) == 0,
                 "not a stack: codes " + codes.describe() + ", scales " + scales.describe());
  Quantized one = *this;
  one.codes = codes.slice(group, 1).view({codes.dim(1), codes.dim(2)});
  const int64_t per_group = scales.numel() / codes.dim(0);
  one.scales = Tensor(scales.as<float>() + group * per_group, DType::f32, {per_group});
  if (mode == ScaleMode::block_1x128 || mode == ScaleMode::block_128x128) {
    const int64_t blocks = (codes.dim(2) + 127) / 128;
    one.scales = one.scales.view({per_group / blocks, blocks});
  }
  return one;
}

}  // namespace assay
