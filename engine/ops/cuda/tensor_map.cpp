#include "engine/ops/cuda/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <string>

#include "engine/ops/error.h"

namespace assay::cuda {
namespace {

// Taken from the driver at run time: a program linked to libcuda does not start where there is no driver.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto function = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found{};
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found) !=
            cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
      throw EngineError(FailureReason::device_error,
                        "the NVIDIA driver has no cuTensorMapEncodeTiled: it is older than 525");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f);
  }();
  return function;
}

}  // namespace

CUtensorMap matrix_map(const char* what, const void* data, int element_bytes, int64_t rows, int64_t columns,
                       int box_rows, int row_bytes) {
  CUtensorMap map;
  const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t pitch[1] = {static_cast<cuuint64_t>(columns * element_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(row_bytes / element_bytes), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t step[2] = {1, 1};
  const CUresult result =
      encoder()(&map, element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
                const_cast<void*>(data), size, pitch, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                row_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw EngineError(FailureReason::plan_error,
                      std::string(what) + ": no TMA descriptor for [" + std::to_string(rows) + ", " +
                          std::to_string(columns) + "] of " + std::to_string(element_bytes) +
                          " bytes (rows must be multiples of 16 bytes)",
                      what);
  return map;
}

CUtensorMap row_order_map(const char* what, const void* data, int64_t rows, int64_t columns, RowOrder order,
                          int box_rows) {
  CUtensorMap map;
  const bool fours = order == RowOrder::fours;
  const auto row = static_cast<cuuint64_t>(columns), sixteens = static_cast<cuuint64_t>(rows / 16);
  const auto box_sixteens = static_cast<cuuint32_t>(box_rows / 16);
  const cuuint64_t size_pairs[] = {row, 8, 2, sixteens}, pitch_pairs[] = {2 * row, row, 16 * row};
  const cuuint64_t size_fours[] = {row, 2, 4, 2, sixteens}, pitch_fours[] = {row, 4 * row, 2 * row, 16 * row};
  const cuuint32_t box_pairs[] = {128, 8, 2, box_sixteens}, box_fours[] = {128, 2, 4, 2, box_sixteens};
  const cuuint32_t step[] = {1, 1, 1, 1, 1};
  const CUresult result =
      rows % 16 != 0
          ? CUDA_ERROR_INVALID_VALUE
          : encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, fours ? 5 : 4, const_cast<void*>(data),
                      fours ? size_fours : size_pairs, fours ? pitch_fours : pitch_pairs, fours ? box_fours : box_pairs,
                      step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw EngineError(FailureReason::plan_error,
                      std::string(what) + ": no TMA descriptor for [" + std::to_string(rows) + ", " +
                          std::to_string(columns) +
                          "] of codes (rows must be multiples of 16 bytes, and their number " + "a multiple of 16)",
                      what);
  return map;
}

}  // namespace assay::cuda
