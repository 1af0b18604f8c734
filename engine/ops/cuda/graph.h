// A recorded piece of work: one CUDA graph.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "engine/ops/backend.h"

namespace assay::cuda {

class Graph final : public Recording {
 public:
  ~Graph() override;
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Captures what `work` launches on the stream; nothing of it runs. Throws what `work` throws.
  static std::unique_ptr<Graph> capture(cudaStream_t, const std::function<void()>& work);
  void launch(cudaStream_t) const;

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace assay::cuda
