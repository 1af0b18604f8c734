#include "engine/ops/cuda/graph.h"

#include "engine/ops/cuda/check.h"

namespace assay::cuda {

Graph::~Graph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

std::unique_ptr<Graph> Graph::capture(cudaStream_t stream, const std::function<void()>& work) {
  auto graph = std::make_unique<Graph>();
  const int64_t before = launches;
  ASSAY_CUDA_CHECK("capture", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    work();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(stream, &captured));
    if (captured != nullptr) cudaGraphDestroy(captured);
    throw;
  }
  launches = before;  // recorded, not launched
  ASSAY_CUDA_CHECK("capture", cudaStreamEndCapture(stream, &captured));
  const cudaError_t made = cudaGraphInstantiate(&graph->exec_, captured, 0);
  cudaGraphDestroy(captured);
  ASSAY_CUDA_CHECK("capture", made);
  ASSAY_CUDA_CHECK("capture", cudaGraphUpload(graph->exec_, stream));
  return graph;
}

void Graph::launch(cudaStream_t stream) const {
  ASSAY_CUDA_CHECK("replay", cudaGraphLaunch(exec_, stream));
  ++launches;
}

}  // namespace assay::cuda
