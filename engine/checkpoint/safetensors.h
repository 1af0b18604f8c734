// Safetensors files (https://github.com/huggingface/safetensors, "Format"): u64 header length, JSON header, tensor
// bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/ops/tensor.h"

namespace assay {

struct NamedTensor {
  std::string name;
  Tensor tensor;  // host memory
};
// What was written: enough to tell later whether the file is still whole.
struct WrittenFile {
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
};
// fsyncs; throws EngineError(internal) naming the path on failure. Tensors are stored by element size, then name, so
// that each is aligned to its elements.
WrittenFile write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata);

// Reads the whole file; tensors view `storage`, in the order of their bytes. Move-only: a copy's tensors would view the
// original.
struct SafetensorsFile {
  std::vector<char> storage;
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> metadata;
  const Tensor* find(const std::string& name) const;

  SafetensorsFile() = default;
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;
};
// Throws EngineError: internal if the file cannot be read, data_error if it is malformed (whatever its bytes are).
SafetensorsFile read_safetensors(const std::string& path);

}  // namespace assay
