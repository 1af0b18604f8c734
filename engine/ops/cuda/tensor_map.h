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

// The order in which 16 rows of a matrix lie in shared memory.
enum class RowOrder {
  pairs,  // row 2t + i at t + 8i: an accumulator's two rows, t and t + 8 of a warp's 16, are neighbours in the matrix
  fours,  // row 4q + 2b + e at 8b + 2q + e: an accumulator's columns 2q, 2q + 1 of two blocks of 8 are four neighbours
};
// As matrix_map, for one-byte elements read in boxes of box_rows x 128 bytes whose rows lie in that order. Coordinates:
// the column, then zeros, last the row / 16 (4 of them for pairs, 5 for fours). Rows are a multiple of 16.
CUtensorMap row_order_map(const char* what, const void* data, int64_t rows, int64_t columns, RowOrder order,
                          int box_rows);

}  // namespace assay::cuda
