#include "engine/ops/cuda/grouped_fp8_scaled.cuh"

namespace assay::cuda {

void fp8_blockwise_product(cudaStream_t stream, Epilogue epilogue, DType a, const Product& x, const GroupedParams& p) {
  scaled_product<Scales::blockwise>(stream, epilogue, a, x, p);
}

}  // namespace assay::cuda
