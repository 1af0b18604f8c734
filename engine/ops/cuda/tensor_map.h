// TMA descriptors of row-major matrices.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "engine/ops/tensor.h"

namespace assay::cuda {

// A [rows, columns] matrix of 1- or 2-byte elements read or written in boxes of box_rows x row_bytes, with the swizzle
// that row_bytes (128 or 64) implies. Reads outside give zeros, writes outside are dropped. The row pitch must be a
// multiple of 16 bytes; throws EngineError(plan_error) naming `what` if the driver refuses.
CUtensorMap matrix_map(const char* what, const void* data, int element_bytes, int64_t rows, int64_t columns,
                       int box_rows, int row_bytes = 128);

}  // namespace assay::cuda
