// Safetensors files (https://github.com/huggingface/safetensors, "Format"): u64 header length, JSON header, tensor bytes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/ops/tensor.h"

namespace assay {

struct NamedTensor {
  std::string name;
  Tensor tensor;  // host memory
};
// fsyncs; throws EngineError(internal) naming the path on failure.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

// Reads the whole file; tensors view `storage`.
struct SafetensorsFile {
  std::vector<char> storage;
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> metadata;
  const Tensor* find(const std::string& name) const;
};
SafetensorsFile read_safetensors(const std::string& path);

}  // namespace assay
