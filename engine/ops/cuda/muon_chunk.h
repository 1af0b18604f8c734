// What the kernels of Muon share: the matrices of one chunk, where their state is, and the scratch memory.
//
// Every matrix X [R, C] is worked on as Y [S, L] with S = min(R, C), L = max(R, C): Y = X^T if R >= C, else X. A is
// then always Y Y^T, and the second moment is always one value per column of Y. Y is padded with zeros to multiples of
// 128 rows and 64 columns, so that tiles of a product do not run into the next matrix; zeros change no product.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

namespace assay::cuda {

constexpr int max_muon_stacks = 64;  // the table travels as a kernel argument, of which there are 4 KiB

struct MuonChunk {
  int rows, columns;  // R, C
  bool transposed;    // Y = X^T
  int s, l, s_padded, l_padded;

  int matrices, stacks;
  int end[max_muon_stacks];  // stack i holds the matrices [end[i - 1], end[i])
  float* param[max_muon_stacks];
  const float* grad[max_muon_stacks];
  float* momentum[max_muon_stacks];
  float* second_moment[max_muon_stacks];

  __nv_bfloat16 *y, *next;     // [matrices, s_padded, l_padded]
  __nv_bfloat16 *gram, *poly;  // [matrices, s_padded, s_padded]
  double* row_squares;         // [matrices, R] of X = bf16(g)
  float* row_factor;           // [matrices, R]
  double* column_squares;      // [matrices, l] of the orthogonalised Y
  float* column_factor;        // [matrices, l]
  float* scale;                // [matrices]: of the normalisation, then of the snap
};
static_assert(sizeof(MuonChunk) <= 4000);

inline std::string describe(const MuonChunk& c) {
  return std::to_string(c.matrices) + " matrices of " + std::to_string(c.rows) + " x " + std::to_string(c.columns);
}

// A block holds a matrix of up to this size in shared memory: 152 KiB with its statistics.
constexpr int small_muon_s = 16, small_muon_l = 2048;
inline bool is_small(const MuonChunk& c) {
  return c.s <= small_muon_s && c.l <= small_muon_l;
}

// The twin's constants, rounded to float where it rounds them.
struct MuonFactors {
  float momentum_take, momentum_beta, second_take, lr, decay;
  const int32_t* skip;  // null, or not zero: no state is written
};

// momentum updated; y = bf16(Nesterov gradient), equilibrated and normalised.
void muon_prepare(cudaStream_t, const MuonChunk&, const MuonFactors&);
// next = a * y + (b * A + c * A * A) * y with A = y * y^T.
void muon_iteration(cudaStream_t, const MuonChunk&, double a, double b, double c);
// From y: snap of the norm, second moment, parameters.
void muon_apply(cudaStream_t, const MuonChunk&, const MuonFactors&);
// All of it, for chunks that are small; needs no scratch memory.
void muon_small(cudaStream_t, const MuonChunk&, const MuonFactors&);

}  // namespace assay::cuda
